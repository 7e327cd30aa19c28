"""Suite `map_hour`: an hour of looping input through the map: are graph and memory bounded,
how much of one core does it take, and is the front end as quick with it as without?

The keyframes are those of a real run over a clip, told again and again, to and fro, each time with
new ids and stamps and with a drift that grows, so that every lap has its loops to close. The
odometry is not on that clock: the map works in a thread of its own beside it. What it costs the
front end is measured by the same frames with and without it, in turns.
"""

from __future__ import annotations

import gc
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from flow3r_ros.bench.faults import SHARED
from flow3r_ros.bench.memory import there_and_back
from flow3r_ros.bench.run import CLIP
from flow3r_ros.bench.suites import Timing
from flow3r_ros.config import Config, SlamSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.slam.disk import save_map
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.types import Frame, Predictor

LONG = "sevenscenes_redkitchen"
"""clip whose keyframes are told where it is here; else the bundled one"""
SECONDS, HOUR = 300, 3600
"""of video that are told, and when `thorough`"""
TURN, SHIFT = 0.002, 0.01
"""rad, and share of the median depth, that a lap drifts by"""
BOUND = 200
"""`slam.max_keyframes`: below what an hour brings, so that the map has to be thinned"""
FRAMES, TURNS = 300, 3
"""of the clip, and times that they are run with and without the map"""


def bench_map_hour(thorough: bool = False) -> dict[str, Any]:
    """SECONDS of looping input, an HOUR when `thorough`."""
    from flow3r_ros.network.runner import open_predictor

    clip = SHARED / LONG if (SHARED / LONG).is_dir() else CLIP
    predictor = open_predictor(Config().model)
    keyframes, seconds = keyframes_of(clip, predictor, FRAMES)
    period_s = seconds / len(keyframes)
    result = measure(keyframes, period_s, HOUR if thorough else SECONDS, BOUND)
    result["rows"].append(front_end_row(clip, predictor, FRAMES, TURNS))
    return result


def front_end_row(clip: Path, predictor: Predictor, frames: int, turns: int) -> dict[str, Any]:
    """Frames a second with the map and without, in turns; the map is one that was made of the same
    frames before, so that every keyframe has places to be compared with."""
    with open_source(clip, max_frames=frames) as source:
        given = list(source)
    rates = []
    with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as folder:
        saved = Path(folder) / "map"
        with Mapper(SlamSettings(enabled=True)) as mapper:
            _rate(given, predictor, mapper)
            save_map(saved, mapper.snapshot(1.0, False))
        for _ in range(turns):
            without = _rate(given, predictor, None)
            with Mapper(SlamSettings(enabled=True, map=str(saved))) as mapper:
                rates.append((_rate(given, predictor, mapper), without))
                closed = mapper.finish().closed
    with_map, without_map = (Timing.of(list(column)) for column in zip(*rates, strict=True))
    return {
        "name": "front end with the map",
        "median": with_map.median,
        "p10": with_map.p10,
        "p90": with_map.p90,
        "unit": "frames/s",
        "baseline": "without",
        "baseline_median": without_map.median,
        "ratio": with_map.median / without_map.median,
        "note": f"1 when unchanged; in turns, {turns} times {len(given)} frames, {closed} loops",
    }


def _rate(frames: list[Frame], predictor: Predictor, mapper: Mapper | None) -> float:
    """Frames a second that the engine takes, fed as fast as it does."""
    predictor.reset()
    with Engine(predictor, Config(), mapper.take if mapper else None) as engine:
        begun = perf_counter()
        for frame in frames:
            engine.step(frame)
        return len(frames) / (perf_counter() - begun)


def keyframes_of(
    clip: Path, predictor: Predictor, max_frames: int | None
) -> tuple[list[Finished], float]:
    """What the odometry tells of a clip's keyframes, and its seconds."""
    told: list[Finished] = []
    with (
        open_source(clip, max_frames=max_frames) as source,
        Engine(predictor, Config(), told.append) as engine,
    ):
        stamps = []
        for frame in source:
            stamps.append(frame.stamp_ns)
            engine.step(frame)
    return told, (stamps[-1] - stamps[0]) * 1e-9


def measure(
    keyframes: list[Finished], period_s: float, seconds: float, bound: int
) -> dict[str, Any]:
    """Tell `seconds` of looping keyframes, one every `period_s`, to a map of at most `bound`."""
    count = int(seconds / period_s)
    settings = SlamSettings(enabled=True, max_keyframes=bound)
    rss: list[float] = []
    most = loops = 0
    with Mapper(settings) as mapper:
        for index, told in enumerate(_looped(keyframes, period_s, count)):
            mapper.take(told)
            if index % max(count // 10, 1) == 0:
                state = mapper.finish()
                most, loops = max(most, state.keyframes), max(loops, len(state.loops))
                gc.collect()
                rss.append(_resident_mb())
        state = mapper.finish()
        busy = mapper.busy_s
    half = rss[len(rss) // 2]
    return {
        "rows": [
            {
                "name": "work of the map",
                "median": 100.0 * busy / seconds,
                "unit": "% of one core",
                "note": f"required: below 20; {1e3 * busy / count:.0f} ms a keyframe",
            },
            {
                "name": "keyframes in the map",
                "median": max(most, state.keyframes),
                "unit": "",
                "note": f"at most; slam.max_keyframes is {bound}; {count} were told",
            },
            {
                "name": "loops in the graph",
                "median": max(loops, len(state.loops)),
                "unit": "",
                "note": f"at most; {state.closed} were closed, refused: {dict(state.refused)}",
            },
            {
                "name": "resident memory at the end",
                "median": rss[-1],
                "unit": "MB",
                "baseline": "half way",
                "baseline_median": half,
                "ratio": half / rss[-1],
                "note": "1 when flat",
            },
        ],
        "seconds of video": seconds,
    }


def _looped(keyframes: list[Finished], period_s: float, count: int) -> Iterator[Finished]:
    """Keyframes to and fro, with ids and stamps that go on and a drift that grows by the lap."""
    depth = float(np.median([each.reference.median_depth for each in keyframes]))
    lap = 2 * len(keyframes) - 2
    for index in range(count):
        told = keyframes[there_and_back(index, len(keyframes))]
        laps = index / lap
        drift = rigid(so3_exp([0.0, TURN * laps, 0.0]), [SHIFT * depth * laps, 0.0, 0.0])
        view = told.reference.view
        frame = replace(view.frame, id=index, stamp_ns=int(index * period_s * 1e9))
        yield replace(
            told,
            reference=replace(
                told.reference, view=replace(view, frame=frame), pose=drift @ told.reference.pose
            ),
            adjusted={},
            segment=0,
        )


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * 4096 / 2**20
