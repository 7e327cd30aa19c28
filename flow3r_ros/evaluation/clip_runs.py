"""One contender on one clip, in a process of its own and with the machine to itself, its result
kept: what an interrupted scoreboard goes on from.

The odometry is the public command `flow3r run`; the classical baseline reads the same frames
through the same source. A result is kept under the hash of the sources and weights that decide the
answer and of the machine that decides the speed, so a changed line of code measures anew. Errors
are computed from the kept trajectory, and so follow the metrics' code without another run.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np
import yaml

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.classical_vo import ClassicalOdometry
from flow3r_ros.evaluation.clip_depth import measure_confidence, measure_depth, median_depth
from flow3r_ros.evaluation.consistency import judge_run
from flow3r_ros.evaluation.machine import describe_machine, fingerprint
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.motion import moves, path_length, rotation_angle
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.offline.summary import peak_rss_mb
from flow3r_ros.paths import write_atomically
from flow3r_ros.report.page import RECORD_FILE
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Float64, Frame, seconds
from flow3r_ros.wire.tum import read_tum, write_tum

ODOMETRY_SOURCES = (
    "types.py",
    "config.py",
    "geometry",
    "network",
    "odometry",
    "offline",
    "report/record.py",
    "report/history.py",
    "evaluation/clip_depth.py",
    "evaluation/calibration.py",
    "evaluation/depth.py",
)
CLASSICAL_SOURCES = ("geometry", "offline", "evaluation/classical_vo.py")
LIMIT_S = 1800.0
"""seconds after which a run of the odometry is given up"""


@dataclass(frozen=True)
class Contender:
    """Who runs: the odometry with a model, or (no model) the classical odometry."""

    key: str
    """what its results are kept under"""
    title: str
    """what the page calls it"""
    model: str = ""
    weights: str | None = None
    """its weights file"""

    def fingerprint(self) -> str:
        """Hash of everything that decides its answers and their speed."""
        machine = {
            name: value for name, value in describe_machine().items() if name != "memory_gib"
        }
        sources = ODOMETRY_SOURCES if self.model else CLASSICAL_SOURCES
        return fingerprint(
            sources, [Path(self.weights)] if self.weights else [], json.dumps(machine)
        )


CLASSICAL = Contender("classical", "classical odometry")


@dataclass(frozen=True)
class Clip:
    """A folder in the layout of `../shared/video`: frames, stamps, camera.json, and ground truth
    where it exists."""

    path: Path
    static: bool = False
    """the camera stands still in truth, so whatever motion is found is error"""

    @property
    def name(self) -> str:
        """Name of the folder; where that is merely `clip`, its parent's name goes before."""
        return f"{self.path.parent.name}_clip" if self.path.name == "clip" else self.path.name

    @property
    def truth(self) -> Path | None:
        """`groundtruth.tum`, if there is one."""
        path = self.path / "groundtruth.tum"
        return path if path.exists() else None


def find_clips(root: Path) -> list[Clip]:
    """Every clip below a folder, by name.

    Raises:
        EvaluationError: there is none.
    """
    found = sorted(path.parent for path in root.glob("*/camera.json")) if root.is_dir() else []
    if not found:
        raise EvaluationError(
            f"{root}: holds no clip (a folder with camera.json)", "give the folder of the clips"
        )
    return [Clip(path, _is_static(path)) for path in found]


def run_clip(
    clip: Clip,
    contender: Contender,
    cache: Path,
    word: str,
    max_frames: int | None = None,
    start: int = 0,
) -> dict[str, Any]:
    """Result of a contender on a clip without its first `start` frames, kept before under the
    fingerprint `word` or measured now.

    Whatever fails is a result too, under the key `error`, but it is not kept.
    """
    folder = (
        cache
        / clip.name
        / f"{contender.key}-{word}-{max_frames or 'all'}{f'-from{start}' if start else ''}"
    )
    kept, trajectory = folder / "result.json", folder / "trajectory.tum"
    try:
        if not kept.exists():
            folder.mkdir(parents=True, exist_ok=True)
            write_json(kept, _measured(clip, contender, folder, max_frames, start))
        result = dict(json.loads(kept.read_text(encoding="utf-8")))
        result |= {"trajectory": str(trajectory), **measure(clip, read_tum(trajectory))}
        return {**result, **_judged(clip, folder / RECORD_FILE)}
    except Exception as error:
        return {"error": " ".join(str(error).split()) or type(error).__name__}


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write a file that is there completely or not at all."""
    write_atomically(path, json.dumps(content, default=str).encode())


def measure(clip: Clip, trajectory: Trajectory) -> dict[str, Any]:
    """Errors against the truth where there is one; the way's length, its farthest point from the
    start and its largest turn always.

    A trajectory that does not move has no scale, so it is aligned by SE(3) instead of Sim(3);
    `errors["align"]` says so.
    """
    first = invert(trajectory.poses[0]) @ trajectory.poses
    result: dict[str, Any] = {
        "frames": len(trajectory.stamps_ns),
        "path": path_length(trajectory.poses),
        "farthest": float(np.linalg.norm(first[:, :3, 3], axis=1).max()),
        "largest_turn_deg": float(np.degrees(rotation_angle(first[:, :3, :3])).max()),
    }
    if clip.truth:
        try:
            result["errors"] = evaluate_trajectory(
                trajectory, clip.truth, "sim3" if moves(trajectory.poses) else "se3"
            )
        except EvaluationError as error:
            result["errors"] = {"error": str(error)}
    return result


def _judged(clip: Clip, record: Path) -> dict[str, Any]:
    """Honesty of a run with truth under the key `judged` (`consistency.judge_run`, or an
    `error`)."""
    if clip.truth is None or not record.exists():
        return {}
    try:
        return {"judged": judge_run(RunRecord.load(record), read_tum(clip.truth))}
    except EvaluationError as error:
        return {"judged": {"error": str(error)}}


def _measured(
    clip: Clip, contender: Contender, folder: Path, max_frames: int | None, start: int
) -> dict[str, Any]:
    scratch = folder / "scratch"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir()
    try:
        source = _without_start(clip, scratch / "clip", start) if start else clip.path
        if contender.model:
            return _run_odometry(source, contender, folder, max_frames)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            return pool.submit(_run_classical, source, folder, max_frames).result()
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _run_odometry(
    source: Path, contender: Contender, folder: Path, max_frames: int | None
) -> dict[str, Any]:
    settings, output = folder / "settings.yaml", folder / "scratch" / "run"
    settings.write_text(yaml.safe_dump({"model": {"name": contender.model}}), encoding="utf-8")
    command = [
        sys.executable,
        "-m",
        "flow3r_ros.cli.main",
        "run",
        str(source),
        "--output",
        str(output),
        "--config",
        str(settings),
        "--on-interrupt",
        "discard",
        "--json",
    ]
    command += ["--max-frames", str(max_frames)] if max_frames else []
    command += ["--save-confidence"] if (source / "depth.txt").exists() else []
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as error:
        raise EvaluationError(f"not finished within {LIMIT_S:.0f} s") from error
    if done.returncode:
        raise EvaluationError(
            (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        )
    write_tum(folder / "trajectory.tum", read_tum(output / "trajectory.tum"))
    shutil.copy(output / RECORD_FILE, folder / RECORD_FILE)
    result: dict[str, Any] = {
        "summary": json.loads((output / "summary.json").read_text(encoding="utf-8"))
    }
    result["median_depth"] = median_depth(output / "depth")
    try:
        result["depth"] = measure_depth(source, output / "depth")
        result["confidence"] = measure_confidence(source, output)
    except EvaluationError as error:
        result["depth"] = {"error": str(error)}
    return result


def _run_classical(source: Path, folder: Path, max_frames: int | None) -> dict[str, Any]:
    """The classical odometry in this process: its trajectory into the folder, its speed and memory
    under the keys of summary.json."""
    odometry = ClassicalOdometry()
    stamps: list[int] = []
    poses: list[Float64] = []
    taken: list[float] = []
    begin = perf_counter()
    with open_source(source, max_frames=max_frames) as frames:
        for frame in _increasing(frames):
            step = perf_counter()
            poses.append(odometry.register_frame(frame))
            taken.append(1000 * (perf_counter() - step))
            stamps.append(frame.stamp_ns)
    seconds = perf_counter() - begin
    if not poses:
        raise EvaluationError(f"{source}: holds no usable frame")
    write_tum(
        folder / "trajectory.tum",
        Trajectory(np.array(stamps, np.int64), np.stack(poses), "classical odometry"),
    )
    p50, p95 = (float(value) for value in np.percentile(taken, [50, 95]))
    speed = {
        "fps": len(poses) / seconds,
        "latency_ms": {"p50": p50, "p95": p95},
        "peak_rss_mb": peak_rss_mb(),
    }
    return {"summary": speed, "failures": odometry.failures}


def _without_start(clip: Clip, folder: Path, start: int) -> Path:
    """A copy of the clip that lacks its first frames; pictures are copied without loss."""
    (folder / "frames").mkdir(parents=True)
    shutil.copy(clip.path / "camera.json", folder / "camera.json")
    stamps: list[str] = []
    with open_source(clip.path) as source:
        for frame in source:
            if frame.id >= start:
                cv2.imwrite(
                    str(folder / "frames" / f"{len(stamps):06d}.png"),
                    frame.rgb[..., ::-1],
                    [cv2.IMWRITE_PNG_COMPRESSION, 1],
                )
                stamps.append(f"{seconds(frame.stamp_ns)}\n")
    (folder / "timestamps.txt").write_text("".join(stamps), encoding="utf-8")
    return folder


def _is_static(path: Path) -> bool:
    """Whether SOURCE.md says that the camera does not move (as `../shared/video` words it)."""
    text = (path / "SOURCE.md").read_text(encoding="utf-8") if (path / "SOURCE.md").exists() else ""
    return any(words in text for words in ("camera static", "camera motion is zero", "zero-motion"))


def _increasing(source: Any) -> Any:
    """Frames whose stamp is later than that of the frame before."""
    last = -1
    for frame in source:
        if isinstance(frame, Frame) and frame.stamp_ns > last:
            last = frame.stamp_ns
            yield frame
