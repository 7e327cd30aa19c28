"""Suite `odometry`: what a frame costs outside the network, stage by stage, and the classical
odometry beside it.

The network is replaced by an exact and free one, over pictures of a slanted textured plane, so that
only our own code is on the clock.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from time import perf_counter
from typing import Any

import cv2
import numpy as np

from flow3r_ros.bench.memory import (
    SMALL,
    knowing_predictor,
    memory_row,
    peak_mb,
    small_config,
    small_pictures,
    there_and_back,
)
from flow3r_ros.bench.plane_scene import CAMERA, PlanePredictor, plane_picture
from flow3r_ros.bench.suites import Timing
from flow3r_ros.config import Config
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.evaluation.classical_vo import ClassicalOdometry
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.run import run
from flow3r_ros.types import Frame

FRAME = ("rectify", "track")
"""stages of every frame; the others are those of a keyframe, built beside it"""


def bench_odometry(thorough: bool = False, frames: int = 120) -> dict[str, Any]:
    """Median milliseconds of each stage at 640x480 with default settings, one core for OpenCV; peak
    memory of `flow3r run` on 60 frames of video beside 600 (100 beside 1000 when `thorough`)."""
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        result = _measure(frames)
    finally:
        cv2.setNumThreads(threads)
    result["rows"].append(video_memory(100 if thorough else 60))
    return result


def video_memory(frames: int) -> dict[str, Any]:
    """Peak memory of `flow3r run` on a video of so many frames, and of ten times as many, each in a
    process of its own."""
    with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as name:
        short, long = (
            peak_mb(_run_video, _looped_video(Path(name) / str(count), count))
            for count in (frames, 10 * frames)
        )
    note = "required: within 10 %; 320x240, an exact network that costs nothing, depth at width 112"
    return memory_row(
        f"peak memory, video of {10 * frames} frames", long, f"{frames} frames", short, note
    )


def _looped_video(folder: Path, frames: int) -> Path:
    folder.mkdir()
    save_camera(SMALL, folder / "camera.json")
    pictures = small_pictures()
    video = cv2.VideoWriter(
        str(folder / "looped.mp4"),
        cv2.VideoWriter.fourcc(*"mp4v"),
        30.0,
        (SMALL.width, SMALL.height),
    )
    for index in range(frames):
        video.write(np.ascontiguousarray(pictures[there_and_back(index)][..., ::-1]))
    video.release()
    return folder / "looped.mp4"


def _run_video(video: Path) -> None:
    with open_source(video) as source, Engine(knowing_predictor(), small_config()) as engine:
        run(source, engine, video.parent / "run", quiet=True)


def _measure(frames: int) -> dict[str, Any]:
    pictures = [Frame(i, i * 33_333_333, plane_picture(i), CAMERA) for i in range(frames)]
    estimates, steps = [], []
    with Engine(PlanePredictor(), Config()) as engine:
        for frame in pictures:
            start = perf_counter()
            estimates += engine.step(frame)
            steps.append(1000 * (perf_counter() - start))
        estimates += engine.finish()
        seams = {"seams": engine.seams, "seams_refused": engine.seams_refused}
    settled = estimates[10:]
    names = dict.fromkeys(stage for estimate in estimates for stage in estimate.stage_ms)
    stages = {
        stage: Timing.of([e.stage_ms[stage] for e in estimates if stage in e.stage_ms])
        for stage in names
    }
    ours = Timing.of([sum(e.stage_ms.get(stage, 0.0) for stage in FRAME) for e in settled])
    classical, taken = ClassicalOdometry(), []
    for frame in pictures:
        start = perf_counter()
        classical.register_frame(frame)
        taken.append(1000 * (perf_counter() - start))
    whole, beside = Timing.of(steps[10:]), Timing.of(taken[10:])
    rows = [_row("one step, everything but the network", whole)]
    rows[0] |= {
        "baseline": "classical odometry, one frame",
        "baseline_median": beside.median,
        "ratio": beside.median / whole.median,
    }
    rows.append(
        {**_row("a frame, rectified, followed and verified", ours), "note": "required: below 15 ms"}
    )
    rows += [
        _row(f"stage {stage}", timing, "" if stage in FRAME else "of a keyframe, beside the frames")
        for stage, timing in stages.items()
    ]
    return {
        "rows": rows,
        "frames": frames,
        **seams,
        "image": "640x480",
    }


def _row(name: str, timing: Timing, note: str = "") -> dict[str, Any]:
    return {
        "name": name,
        "median": timing.median,
        "p10": timing.p10,
        "p90": timing.p90,
        "unit": "ms",
        "note": note,
    }
