"""Suite `odometry`: what a frame costs outside the network, stage by stage, and the classical odometry beside it.

The network is replaced by an exact and free one, over pictures of a slanted textured plane, so that only our own code is on the clock.
"""

from __future__ import annotations

from time import perf_counter
from typing import Any

import cv2

from flow3r_ros.config import Config
from flow3r_ros.evaluation.bench import Timing
from flow3r_ros.evaluation.classical_vo import ClassicalOdometry
from flow3r_ros.evaluation.plane_scene import CAMERA, PlanePredictor, plane_picture
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.types import Frame

APART = ("network", "assist", "encode")
"""stages that are listed apart: the network, and what runs beside it in its own thread"""


def bench_odometry(frames: int = 120, thorough: bool = False) -> dict[str, Any]:
    """Median milliseconds of each stage at 640x480 with default settings, one core for OpenCV."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        return _measure(frames)
    finally:
        cv2.setNumThreads(threads)


def _measure(frames: int) -> dict[str, Any]:
    pictures = [Frame(i, i * 33_333_333, plane_picture(i), CAMERA) for i in range(frames)]
    engine = Engine(PlanePredictor(), Config())
    estimates, steps = [], []
    for frame in pictures:
        start = perf_counter()
        estimates += engine.step(frame)
        steps.append(1000 * (perf_counter() - start))
    estimates += engine.finish()
    settled = estimates[10:]
    stages = {stage: Timing.of([e.stage_ms[stage] for e in settled if stage in e.stage_ms]) for stage in settled[-1].stage_ms}
    ours = Timing.of([sum(value for stage, value in e.stage_ms.items() if stage not in APART) for e in settled])
    classical, taken = ClassicalOdometry(), []
    for frame in pictures:
        start = perf_counter()
        classical.register_frame(frame)
        taken.append(1000 * (perf_counter() - start))
    whole, beside = Timing.of(steps[10:]), Timing.of(taken[10:])
    rows = [_row("one step, everything but the network", whole)]
    rows[0] |= {"baseline": "classical odometry, one frame", "baseline_median": beside.median, "ratio": beside.median / whole.median}
    rows.append({**_row("outside network and assist", ours), "note": "required: below 15 ms"})
    rows += [_row(f"stage {stage}", timing, "listed apart" if stage in APART else "") for stage, timing in stages.items()]
    return {"rows": rows, "frames": frames, "seams": engine.seams, "seams_refused": engine.seams_refused, "image": "640x480"}


def _row(name: str, timing: Timing, note: str = "") -> dict[str, Any]:
    return {"name": name, "median": timing.median, "p10": timing.p10, "p90": timing.p90, "unit": "ms", "note": note}
