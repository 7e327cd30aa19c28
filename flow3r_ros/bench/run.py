"""Suite `run`: `flow3r run` with default settings, from the video file to the finished folder,
beside itself with one frame at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from flow3r_ros.bench.suites import Timing
from flow3r_ros.config import Config
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import Flow3rError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.run import run
from flow3r_ros.paths import PACKAGE
from flow3r_ros.types import Estimate, Frame, Predictor

CLIP = PACKAGE.parent / "demo" / "clip"
"""the bundled clip, 640x480, in a checkout"""


class OneAtATime(Engine):
    """The engine as a live camera uses it: a frame is settled before the next one is looked at."""

    def feed(self, frame: Frame) -> Iterator[Estimate]:
        """The estimates of `step`."""
        yield from super().feed(frame)
        yield from self.settle()


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
    """Both ways in turns. Raises InputError when the clip is not there."""
    fps: dict[type[Engine], list[float]] = {Engine: [], OneAtATime: []}
    latency: dict[type[Engine], list[float]] = {Engine: [], OneAtATime: []}
    with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as name:
        for turn in range(turns + 1):
            for kind in fps:
                engine = kind(predictor, Config())
                engine.reset()
                with open_source(clip, max_frames=max_frames) as source:
                    summary = run(
                        source, engine, Path(name) / f"{kind.__name__}_{turn}", quiet=True
                    )
                if turn:  # the first turn warms up
                    fps[kind].append(summary["fps"])
                    latency[kind].append(summary["latency_ms"]["p50"])
    ours, beside = Timing.of(fps[Engine]), Timing.of(fps[OneAtATime])
    speed = {
        "name": "flow3r run",
        "median": ours.median,
        "p10": ours.p10,
        "p90": ours.p90,
        "unit": "frames/s",
    }
    speed |= {
        "baseline": "one frame at a time",
        "baseline_median": beside.median,
        "ratio": ours.median / beside.median,
    }
    speed["note"] = (
        "goal: 8 at 640x480 on 2 cores; decoding, odometry, depth images and report included"
    )
    waits, alone = Timing.of(latency[Engine]), Timing.of(latency[OneAtATime])
    late = {
        "name": "a frame handed over until its estimate (p50)",
        "median": waits.median,
        "unit": "ms",
    }
    late |= {
        "baseline": "one frame at a time",
        "baseline_median": alone.median,
        "ratio": alone.median / waits.median,
    }
    late["note"] = "a frame waits at the network while the next one is matched"
    return {
        "rows": [speed, late],
        "frames": summary["frames_in"],
        "device": summary["device"],
        "model": summary["model"],
    }
