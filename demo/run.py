"""`make demo`: a clip played over DDS from a process of its own into the real node, recorded to a
bag, reported on.

    python -m demo.run [--clip PATH] [--output FOLDER] [--model NAME]

Exit code 0 when the node estimated frames and ended cleanly.
"""

from __future__ import annotations

import argparse
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import rclpy
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor

from demo.recorder import Recorder
from demo.results import summarize
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.errors import Flow3rError, InputError, OutputError
from flow3r_ros.ros.dds_profile import use_large_messages

ROOT = Path(__file__).resolve().parents[1]
START_S, LOOK_S, QUIET_S = 60.0, 0.1, 2.0
"""longest wait for the node to be ready; how often it is looked at; silence after the clip that
says that everything came"""


def demonstrate(clip: Path, output: Path, model: str, seconds: float) -> dict[str, Any]:
    """Play, record, report into `output`; returns the summary. Raises Flow3rError."""
    if not clip.exists():
        raise InputError(
            f"{clip}: does not exist", "give a video, an image folder or a bag: make demo CLIP=..."
        )
    _make_way(output)
    output.mkdir(parents=True)
    os.environ.setdefault("ROS_AUTOMATIC_DISCOVERY_RANGE", "LOCALHOST")
    os.environ.setdefault("ROS_DOMAIN_ID", str(60 + os.getpid() % 40))
    use_large_messages()
    context = rclpy.context.Context()
    rclpy.init(context=context)
    listener = rclpy.create_node("recorder", context=context)
    with (output / "node.log").open("w") as log, BagWriter(output / "bag") as bag:
        node = _start(
            "-m", "flow3r_ros.cli", "node", "--ros-args", "-p", f"model.name:={model}", log=log
        )
        try:
            recorder = Recorder(listener, bag)
            spinning = _spin(listener, context)
            _wait(lambda: recorder.matched(listener), node, output / "node.log")
            sent = _play(clip, seconds)
            recorder.wait_for_quiet(QUIET_S)
        finally:
            node.send_signal(signal.SIGINT)
            code = node.wait(10.0)
            rclpy.try_shutdown(context=context)
            spinning.join(2.0)
    if code:
        raise OutputError(f"the node ended with exit code {code}", f"see {output / 'node.log'}")
    return summarize(output / "bag", clip, sent, output / "report.html")


def _make_way(output: Path) -> None:
    """Remove what an earlier demo left, and nothing else."""
    if not output.exists():
        return
    if any(output.iterdir()) and not (output / "node.log").exists():
        raise OutputError(f"{output}: exists and is not an earlier demo", "give another --output")
    shutil.rmtree(output)


def _start(*arguments: str, log: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True
    )


def _spin(node: Any, context: Any) -> threading.Thread:
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)

    def spin() -> None:
        try:
            executor.spin()
        except ExternalShutdownException:
            return

    thread = threading.Thread(target=spin, daemon=True)
    thread.start()
    return thread


def _wait(ready: Any, node: subprocess.Popen[str], log: Path) -> None:
    end = time.monotonic() + START_S
    while not ready():
        if time.monotonic() > end:
            raise OutputError(f"the node was not ready within {START_S:.0f} s", f"see {log}")
        try:
            node.wait(LOOK_S)
        except subprocess.TimeoutExpired:
            continue
        raise OutputError(
            f"the node did not start: {log.read_text().strip().splitlines()[-1:]}", f"see {log}"
        )


def _play(clip: Path, seconds: float) -> int:
    """The player in a process of its own; number of frames that it sent."""
    command = [sys.executable, "-m", "demo.player", str(clip), "--seconds", str(seconds)]
    player = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=seconds + 60, check=False
    )
    if player.returncode:
        raise InputError(
            f"{clip}: cannot be played ({player.stderr.strip().splitlines()[-1:]})",
            "check the file",
        )
    return int(player.stdout.split()[-1])


def _say(summary: dict[str, Any], output: Path, wall_s: float) -> None:
    dropped = (
        ", ".join(f"{count} {reason}" for reason, count in summary["frames_dropped"].items())
        or "none"
    )
    states = ", ".join(f"{count} {state}" for state, count in summary["tracking_states"].items())
    print(f"model      {summary['model']} (licence of the weights: {summary['weights_license']})")
    print(
        f"frames     {summary['frames_sent']} sent, {summary['frames_estimated']} "
        f"estimated at {summary['fps']} fps; dropped: {dropped}"
    )
    print(
        f"latency    {summary['latency_ms']['p50']} ms p50, {summary['latency_ms']['p95']} ms p95"
    )
    print(f"tracking   {states}; scale {summary['scale_state']}")
    if "ate_rmse" in summary:
        print(
            f"error      ATE {summary['ate_percent']:.2f} % of the "
            f"{summary['path_length']:.2f} m path after Sim(3) alignment, "
            f"{summary['rpe_rot_deg_rmse']:.2f} deg per frame ({summary['matched']} poses)"
        )
        nees = {what: spread.get("median") for what, spread in summary["nees"].items()}
        if None not in nees.values():
            print(
                f"trust      squared errors over what covariances claim, median (one is right): "
                f"position {nees['position']:.2f}, twist {nees['twist']:.2f}"
            )
    busy = summary["frames_dropped"].get("busy", 0)
    if busy > summary["frames_in"] / 3:
        print(
            "note       this machine is slower than the camera: a live node takes the "
            "newest image and drops the rest;"
        )
        print("           flow3r run or flow3r replay estimate every frame")
    print(f"bag        {output / 'bag'}")
    print(f"report     {output / 'report.html'}")
    print(f"took       {wall_s:.0f} s")


def main() -> None:
    """Command line of the demo."""
    parser = argparse.ArgumentParser(
        description="Play a clip over DDS into the node, record, report."
    )
    parser.add_argument("--clip", type=Path, default=ROOT / "demo" / "clip")
    parser.add_argument("--output", type=Path, default=ROOT / "demo_output")
    parser.add_argument("--model", default="flow3r_nano")
    parser.add_argument(
        "--seconds", type=float, default=60.0, help="play at most this much of the clip"
    )
    options = parser.parse_args()
    start = time.monotonic()
    try:
        summary = demonstrate(options.clip, options.output, options.model, options.seconds)
    except Flow3rError as error:
        sys.exit(f"demo: {error}")
    _say(summary, options.output, time.monotonic() - start)


if __name__ == "__main__":
    main()
