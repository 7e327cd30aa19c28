"""`flow3r bench --suite node`: what the node itself costs, beside a straightforward node; lost images; memory over time."""

from __future__ import annotations

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile

from flow3r_ros.ros.dds_profile import VARIABLES, profile_path
from flow3r_ros.ros.messages import class_of
from flow3r_ros.wire.outputs import TOPICS

OVERHEAD_FRAMES, OVERHEAD_RATE = 150, 10.0
STREAM_RATE = 30.0


def bench_node(thorough: bool = False) -> dict[str, Any]:
    """The suite; 40 s (10 minutes when `thorough`) of a 30 Hz best-effort camera are played with the Fast DDS profile, 10 s without."""
    stream_seconds = 600.0 if thorough else 40.0
    ours, plain = _overheads()
    lost, sent, curve = _stream(stream_seconds, with_profile=True)
    lost_default, sent_default, _ = _stream(min(stream_seconds, 10.0), with_profile=False)
    share, share_default = 100 * lost / sent, 100 * lost_default / sent_default
    overhead = {"name": "image received to everything published, engine excluded, 640x480, all outputs subscribed", "unit": "ms"}
    loss = {"name": "best-effort 640x480 30 Hz images lost before the node", "unit": "%"}
    return {
        "rows": [
            overhead
            | {"median": ours, "baseline": "straightforward node", "baseline_median": plain, "ratio": plain / ours}
            | {"note": "goal: below 10 ms; cloud at depth resolution"},
            loss
            | {"median": share, "baseline": "without the Fast DDS profile", "baseline_median": share_default}
            | {"note": f"goal: below 1 %; {lost} of {sent} lost, {lost_default} of {sent_default} without"},
        ],
        "rss_mb_every_tenth_of_the_stream": [round(value, 1) for value in curve],
        "rss_growth_mb_second_half": round(curve[-1] - curve[len(curve) // 2], 1),
        "stream_seconds": stream_seconds,
    }


def _overheads() -> tuple[float, float]:
    """Median milliseconds of our node and of the straightforward one, one after the other with the same camera and listener."""
    medians = []
    for kind in ("ours", "plain"):
        with _world(with_profile=True) as world, world.start(kind) as node:
            world.listen_to_everything()
            world.play(OVERHEAD_FRAMES, OVERHEAD_RATE, "reliable")
            if kind == "ours":
                medians.append(float(world.diagnostic("beside the engine p50 [ms]")))
                node.send_signal(signal.SIGINT)
            else:
                node.send_signal(signal.SIGINT)
                node.wait(10)
                times = [float(line) for line in world.output(node).split()]
                medians.append(statistics.median(times[len(times) // 5 :]))
    return medians[0], medians[1]


def _stream(seconds: float, with_profile: bool) -> tuple[int, int, list[float]]:
    """Images lost, images sent, and the node's resident memory in MB at eleven moments."""
    frames = int(seconds * STREAM_RATE)
    with _world(with_profile) as world, world.start("ours") as node:
        world.wait_for_diagnostics()
        curve: list[float] = []
        ended = threading.Event()
        watcher = threading.Thread(target=_watch_memory, args=(node.pid, seconds / 10, curve, ended))
        watcher.start()
        world.play(frames, STREAM_RATE, "best_effort")
        ended.set()
        watcher.join()
        received = int(world.diagnostic("frames received"))
        node.send_signal(signal.SIGINT)
    return max(frames - received, 0), frames, curve[-11:]


def _watch_memory(pid: int, period: float, curve: list[float], ended: threading.Event) -> None:
    while not ended.wait(period):
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        curve.append(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


class _World:
    """Processes of one measurement in a DDS domain of their own, and a listener in this process."""

    def __init__(self, environment: dict[str, str], context: Context) -> None:
        self._environment = environment
        self._node = rclpy.create_node("bench", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._values: dict[str, str] = {}
        self._diagnosed = threading.Event()
        self._node.create_subscription(class_of("diagnostic_msgs/msg/DiagnosticArray"), "/diagnostics", self._on_diagnostics, 10)
        threading.Thread(target=self._spin, daemon=True).start()
        self._outputs: dict[int, Any] = {}

    @contextmanager
    def start(self, kind: str) -> Iterator[subprocess.Popen[str]]:
        """A node process, killed at the end if it still runs."""
        with tempfile.TemporaryFile("w+") as output:
            node = subprocess.Popen([*_PROGRAM, kind], env=self._environment, stdout=output, stderr=subprocess.DEVNULL, text=True)
            self._outputs[node.pid] = output
            try:
                yield node
                node.wait(10)
            finally:
                if node.poll() is None:
                    node.kill()
                    node.wait()

    def output(self, node: subprocess.Popen[str]) -> str:
        """What a process has printed."""
        self._outputs[node.pid].seek(0)
        return str(self._outputs[node.pid].read())

    def listen_to_everything(self) -> None:
        """Subscribe to every output; the bytes are taken and thrown away."""
        for topic, type_name in TOPICS.items():
            durability = DurabilityPolicy.TRANSIENT_LOCAL if topic == "~/map" else DurabilityPolicy.VOLATILE
            qos = QoSProfile(depth=5, durability=durability)
            self._node.create_subscription(class_of(type_name), topic.replace("~", "/flow3r"), lambda data: None, qos, raw=True)

    def play(self, frames: int, rate: float, reliability: str) -> None:
        """A camera process, until it has ended; then one more round of diagnostics."""
        command = [*_PROGRAM, "camera", str(frames), str(rate), reliability]
        subprocess.run(command, env=self._environment, check=True, timeout=60 + 2 * frames / rate)

    def wait_for_diagnostics(self) -> None:
        """Until the next round of diagnostics (the straightforward node has none)."""
        self._diagnosed.clear()
        self._diagnosed.wait(20.0)

    def diagnostic(self, key: str) -> str:
        """A value of the next round of diagnostics."""
        self.wait_for_diagnostics()
        return self._values[key]

    def _on_diagnostics(self, message: Any) -> None:
        self._values = {pair.key: pair.value for pair in message.status[0].values}
        self._diagnosed.set()

    def _spin(self) -> None:
        try:
            self._executor.spin()
        except ExternalShutdownException:
            return


_PROGRAM = (sys.executable, "-m", "flow3r_ros.ros.bench_nodes")


@contextmanager
def _world(with_profile: bool) -> Iterator[_World]:
    """A DDS domain with or without the profile for large messages; `none.xml` keeps our node from taking it by itself."""
    domain = int(np.random.default_rng().integers(60, 100))
    environment = os.environ | {"ROS_DOMAIN_ID": str(domain), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"}
    with tempfile.TemporaryDirectory() as folder:
        none = Path(folder) / "none.xml"
        none.write_text('<profiles xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles"></profiles>\n')
        profile = profile_path() if with_profile else none
        environment |= dict.fromkeys(VARIABLES, str(profile or none))
        before = {name: os.environ.get(name) for name in (*VARIABLES, "ROS_AUTOMATIC_DISCOVERY_RANGE")}
        os.environ.update({name: environment[name] for name in before})
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        try:
            yield _World(environment, context)
        finally:
            rclpy.try_shutdown(context=context)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
