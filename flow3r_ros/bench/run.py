"""Suite `run`: `flow3r run` with default settings, from the video file to the finished folder,
beside the classical odometry on the same frames."""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from flow3r_ros.bench.suites import Timing
from flow3r_ros.config import Config
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import Flow3rError
from flow3r_ros.evaluation.classical_vo import ClassicalOdometry
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.run import run
from flow3r_ros.paths import PACKAGE
from flow3r_ros.types import Predictor

CLIP = PACKAGE.parent / "demo" / "clip"
"""the bundled clip, 640x480, in a checkout"""


def bench_run(thorough: bool = False) -> dict[str, Any]:
    """Frames a second of `flow3r run` on the bundled clip (60 frames of it, the whole when
    `thorough`), and latency of a frame."""
    from flow3r_ros.network.runner import open_predictor

    try:
        return measure_run(open_predictor(Config().model), CLIP, None if thorough else 60)
    except Flow3rError as error:
        return {"rows": [], "not measured": str(error)}


def measure_run(
    predictor: Predictor, clip: Path, max_frames: int | None, turns: int = 3
) -> dict[str, Any]:
    """Both odometries in turns. Raises InputError when the clip is not there."""
    ours: list[tuple[float, float]] = []
    classical: list[tuple[float, float]] = []
    summary: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as name:
        for turn in range(turns + 1):
            summary = _run(predictor, clip, max_frames, Path(name) / str(turn))
            beside = _classical(clip, max_frames)
            if turn:  # the first turn warms up
                ours.append((summary["fps"], summary["latency_ms"]["p50"]))
                classical.append(beside)
    fps, latency = (Timing.of(list(column)) for column in zip(*ours, strict=True))
    beside_fps, beside_ms = (Timing.of(list(column)) for column in zip(*classical, strict=True))
    speed = {
        "name": "flow3r run",
        "median": fps.median,
        "p10": fps.p10,
        "p90": fps.p90,
        "unit": "frames/s",
        "baseline": "classical odometry",
        "baseline_median": beside_fps.median,
        "ratio": fps.median / beside_fps.median,
        "note": "goal: 25 at 640x480 on 2 cores; decoding on both sides, depth images and report "
        "on ours",
    }
    late = {
        "name": "a frame handed over until its estimate (p50)",
        "median": latency.median,
        "unit": "ms",
        "baseline": "classical odometry",
        "baseline_median": beside_ms.median,
        "ratio": beside_ms.median / latency.median,
        "note": "goal: below 40",
    }
    return {
        "rows": [speed, late],
        "frames": summary["frames_in"],
        "device": summary["device"],
        "model": summary["model"],
    }


def _run(predictor: Predictor, clip: Path, max_frames: int | None, output: Path) -> dict[str, Any]:
    """Summary of one `flow3r run`."""
    with open_source(clip, max_frames=max_frames) as source, Engine(predictor, Config()) as engine:
        engine.reset()
        return run(source, engine, output, quiet=True)


def _classical(clip: Path, max_frames: int | None) -> tuple[float, float]:
    """Frames a second of the classical odometry, decoding included, and milliseconds of a frame
    (p50)."""
    odometry, taken, begin = ClassicalOdometry(), [], perf_counter()
    with open_source(clip, max_frames=max_frames) as source:
        for frame in source:
            start = perf_counter()
            odometry.register_frame(frame)
            taken.append(1e3 * (perf_counter() - start))
    return len(taken) / (perf_counter() - begin), float(np.median(taken))
