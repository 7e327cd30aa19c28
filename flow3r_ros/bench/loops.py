"""Suite `loops`: which loops does the map close, and is one of them wrong?

Every clip is run whole with the map on; where it has truth, each loop is judged by it, else its
frames are named to be looked at. Then pictures that are made to deceive (`bench.aliasing`), whose
truth is known.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.bench.aliasing import CASES
from flow3r_ros.bench.faults import SHARED, clip_name
from flow3r_ros.bench.maps import with_map
from flow3r_ros.bench.relocalisation import WRONG_SHIFT, WRONG_TURN
from flow3r_ros.bench.run import CLIP
from flow3r_ros.config import Config
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import Flow3rError
from flow3r_ros.geometry.lie import invert, rotation_angle, sim3_parts, umeyama
from flow3r_ros.geometry.trajectory import pose_at
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.run import GROUND_TRUTH
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.types import Float64, Frame, Predictor
from flow3r_ros.wire.tum import read_tum

log = logging.getLogger(__name__)
MAX_GAP_NS = 500_000_000
"""between poses of a truth that are interpolated"""


@dataclass(frozen=True)
class Swept:
    """What the map of a recording closed: `loops` pairs of frame ids, `wrong` those that truth
    contradicts, None without truth; `keyframes` their number, `refused` candidates by reason."""

    loops: list[tuple[int, int]]
    wrong: list[tuple[int, int]] | None
    keyframes: int
    refused: Counter[str]

    def row(self, name: str) -> dict[str, Any]:
        """A row of the suite."""
        frames = ", ".join(f"{first}-{second}" for first, second in self.loops)
        said = "" if self.wrong is None else f", {len(self.wrong)} wrong"
        refused = ", ".join(f"{count} {why}" for why, count in self.refused.most_common())
        parts = [f"{self.keyframes} keyframes{said}", f"refused: {refused or 'none'}"]
        if frames:
            parts.append(f"frames {frames}")
        return {
            "name": f"{name}: loops", "median": len(self.loops), "unit": "",
            "note": "; ".join(parts),
        }  # fmt: skip


def bench_loops(
    thorough: bool = False, clips: Sequence[Path] | None = None, model: str | None = None
) -> dict[str, Any]:
    """The given clips, or the bundled one, all of ../shared/video and `aliasing.CASES`. Whole
    ones always: a loop needs 20 s at least."""
    here = sorted(SHARED.iterdir()) if SHARED.is_dir() else []
    chosen = list(clips or [path for path in (CLIP, *here) if path.is_dir()])
    predictor, config = with_map(model)
    rows: list[dict[str, Any]] = []
    for clip in chosen:
        log.info("%s", clip_name(clip))
        try:
            rows.append(sweep_clip(predictor, clip, config).row(clip_name(clip)))
        except Flow3rError as error:
            rows.append({"name": clip_name(clip), "median": 0.0, "unit": "", "note": str(error)})
    for case in CASES if clips is None else ():
        log.info("%s", case.name)
        rows.append(sweep(predictor, case.frames(), config, case.poses()).row(case.name))
    return {"rows": rows, "model": predictor.name}


def sweep_clip(predictor: Predictor, clip: Path, config: Config) -> Swept:
    """The loops of a clip. Raises InputError where it cannot be read."""
    truth = read_tum(clip / GROUND_TRUTH) if (clip / GROUND_TRUTH).is_file() else None
    poses: dict[int, Float64] = {}

    def seen(frames: Iterable[Frame]) -> Iterator[Frame]:
        for frame in frames:
            if truth is not None:
                stamps, known = truth.stamps_ns.tolist(), list(truth.poses)
                pose = pose_at(stamps, known, frame.stamp_ns, MAX_GAP_NS)
                if pose is not None:
                    poses[frame.id] = pose
            yield frame

    with open_source(clip) as source:
        return sweep(predictor, seen(source), config, None if truth is None else poses)


def sweep(
    predictor: Predictor,
    frames: Iterable[Frame],
    config: Config,
    poses: dict[int, Float64] | None,
) -> Swept:
    """The loops of a recording.

    Args:
        poses: true ones `[4, 4]` by frame id, complete once the frames are; a frame without one
            lies in another world, so that every loop from it to one that has one is wrong.
    """
    predictor.reset()
    with Mapper(config.slam) as mapper, Engine(predictor, config, mapper.take) as engine:
        for frame in frames:
            engine.step(frame)
        engine.finish()
        state = mapper.finish()
        graph, store = mapper.map.graph, mapper.map.store
        assert graph is not None
        loops = [
            (store[each.first].frame_id, store[each.second].frame_id, each.S_first_second,
             store[each.first].median_depth)
            for each in graph.loops
        ]  # fmt: skip
        told = {each.frame_id: each.T_odom_cam for each in mapper.own_keyframes()}
    pairs = [(first, second) for first, second, _, _ in loops]
    wrong = None
    if poses is not None:
        metres = _unit(told, poses)
        wrong = [
            (first, second)
            for first, second, S, depth in loops
            if is_wrong(S, metres * depth, metres, poses.get(first), poses.get(second))
        ]
    return Swept(pairs, wrong, state.keyframes, state.refused)


def _unit(told: dict[int, Float64], poses: dict[int, Float64]) -> float:
    """Metres of a unit of the odometry."""
    shared = sorted(told.keys() & poses.keys())
    if len(shared) < 3:
        return 1.0
    here, there = (np.stack([each[id_][:3, 3] for id_ in shared]) for each in (told, poses))
    return sim3_parts(umeyama(here, there))[0]


def is_wrong(
    S: Float64, depth: float, metres: float, first: Float64 | None, second: Float64 | None
) -> bool:
    """Whether a loop `S` `[4, 4]`, in units of so many metres, misses the truth; `depth` metres to
    what is seen."""
    if first is None or second is None:
        return (first is None) != (second is None)
    true = invert(first) @ second
    _, R, t = sim3_parts(S)
    shift = float(np.linalg.norm(metres * t - true[:3, 3]))
    return rotation_angle(R.T @ true[:3, :3]) > WRONG_TURN or shift > WRONG_SHIFT * depth
