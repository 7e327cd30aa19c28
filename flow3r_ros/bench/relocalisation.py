"""Suite `relocalisation`: is a recording that starts anywhere in a mapped place found in its map
within a second, and one that is carried off to another part of it while it runs?

Where a frame truly lies in the map is what the run that made the map says of it. A clip is mapped
once; each start and each jump then plays a second of it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.bench.faults import SHARED, clip_name
from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import EvaluationError, Flow3rError
from flow3r_ros.geometry.lie import invert, rotation_angle
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.slam.disk import save_map
from flow3r_ros.slam.frames import FrameTrack
from flow3r_ros.slam.mapper import Mapper, MapState
from flow3r_ros.types import Estimate, Float64, Frame, Predictor, TrackingState

log = logging.getLogger(__name__)
CLIPS = ("sevenscenes_redkitchen",)
STARTS, JUMPS = 50, 50
WITHIN_NS = 1_000_000_000
"""of video, in which a place has to be found"""
WRONG_TURN, WRONG_SHIFT = np.radians(10.0), 0.15
"""rad, and share of the median depth, beyond which a pose in the map is a wrong one"""


@dataclass
class Mapped:
    """A clip with its map: `saved` its folder; `poses` `[4, 4]` in the map, odometry units, by
    frame id; `depth` the median depth of its keyframes, in the same units."""

    frames: list[Frame]
    saved: Path
    poses: dict[int, Float64]
    depth: float

    @property
    def last_start(self) -> int:
        """Number of the last frame that is followed by `WITHIN_NS` of the clip."""
        end = self.frames[-1].stamp_ns - WITHIN_NS
        return max((at for at, each in enumerate(self.frames) if each.stamp_ns <= end), default=0)

    def second_from(self, start: int) -> list[Frame]:
        """The frames of a second of the clip."""
        end = self.frames[start].stamp_ns + WITHIN_NS
        return [frame for frame in self.frames[start:] if frame.stamp_ns <= end]


@dataclass
class Found:
    """What became of starts or jumps: `after_s` until the first pose in the map, of those that were
    found; `wrong` poses by event, and how far off all were: rad, and share of the median depth."""

    events: int = 0
    after_s: list[float] = field(default_factory=list)
    wrong: int = 0
    turns: list[float] = field(default_factory=list)
    shifts: list[float] = field(default_factory=list)

    def add(self, began_ns: int, mapped: Mapped, poses: list[tuple[int, int, Float64]]) -> None:
        """An event that began at a stamp, and the poses in the map that it gave: stamp, frame id
        in the clip, pose `[4, 4]`."""
        self.events += 1
        if poses:
            self.after_s.append((poses[0][0] - began_ns) * 1e-9)
        wrong = False
        for _, id_, pose in poses:
            off = invert(mapped.poses[id_]) @ pose
            turn, shift = rotation_angle(off[:3, :3]), np.linalg.norm(off[:3, 3]) / mapped.depth
            self.turns.append(float(turn))
            self.shifts.append(float(shift))
            wrong |= bool(turn > WRONG_TURN or shift > WRONG_SHIFT)
        self.wrong += wrong

    def row(self, name: str) -> dict[str, Any]:
        """A row of the suite."""
        off = "nothing found"
        if self.after_s:
            off = (
                f"after {np.median(self.after_s):.2f} s in the median, {max(self.after_s):.2f} at "
                f"most; off by {np.degrees(np.median(self.turns)):.2f} deg and "
                f"{100 * np.median(self.shifts):.1f} % of the depth, at most "
                f"{np.degrees(max(self.turns)):.1f} deg and {100 * max(self.shifts):.0f} %"
            )
        return {
            "name": name,
            "median": 100.0 * len(self.after_s) / max(self.events, 1),
            "unit": "%",
            "note": f"{len(self.after_s)} of {self.events}, {self.wrong} wrong; {off}",
        }


def bench_relocalisation(
    thorough: bool = False, clips: Sequence[Path] | None = None, model: str | None = None
) -> dict[str, Any]:
    """The given clips, or those of CLIPS that are here; a fifth of the starts and jumps unless
    `thorough`."""
    from flow3r_ros.network.runner import open_predictor

    chosen = list(clips or [SHARED / name for name in CLIPS if (SHARED / name).is_dir()])
    settings = ModelSettings(name=model) if model else ModelSettings()
    predictor, config = open_predictor(settings), Config(model=settings)
    share = 1 if thorough else 5
    rows: list[dict[str, Any]] = []
    for clip in chosen:
        name = clip_name(clip)
        log.info("%s", name)
        with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as folder:
            try:
                mapped = map_clip(predictor, clip, config, Path(folder) / "map")
                rows += [
                    starts(predictor, mapped, config, STARTS // share).row(f"{name}: started"),
                    jumps(predictor, mapped, config, JUMPS // share).row(f"{name}: carried off"),
                ]
            except Flow3rError as error:
                rows.append({"name": name, "median": 0.0, "unit": "", "note": str(error)})
    return {"rows": rows, "model": predictor.name}


def map_clip(
    predictor: Predictor,
    clip: Path,
    config: Config,
    folder: Path,
    max_frames: int | None = None,
) -> Mapped:
    """Map a clip into a folder that does not exist.

    Raises EvaluationError where too little of it is tracked.
    """
    with open_source(clip, max_frames=max_frames) as source:
        frames = list(source)
    settings, track = _settings(config), FrameTrack()
    predictor.reset()
    with Mapper(settings.slam) as mapper, Engine(predictor, settings, mapper.take) as engine:
        for frame in frames:
            for estimate in engine.feed(frame):
                track.add(estimate)
        for estimate in engine.finish():
            track.add(estimate)
        placed = mapper.finish().largest_part()
        trajectory = track.in_map(placed, 1.0, "map")
        keyframes = mapper.own_keyframes()
        if trajectory is None:
            raise EvaluationError(f"{clip}: nothing of it lies in the map", "give another clip")
        saved = save_map(folder, mapper.snapshot(1.0, False))
    by_stamp = dict(zip(trajectory.stamps_ns.tolist(), trajectory.poses, strict=True))
    poses = {f.id: by_stamp[f.stamp_ns] for f in frames if f.stamp_ns in by_stamp}
    return Mapped(frames, saved, poses, float(np.median([each.median_depth for each in keyframes])))


def starts(predictor: Predictor, mapped: Mapped, config: Config, count: int) -> Found:
    """Recordings that start at random frames of a mapped clip, and only localise in its map."""
    settings = _settings(config, map=str(mapped.saved), mode="localisation")
    rng, found = np.random.default_rng(0), Found()
    for start in rng.integers(0, mapped.last_start + 1, count):
        poses = []
        predictor.reset()
        with Mapper(settings.slam) as mapper, Engine(predictor, settings, mapper.take) as engine:
            for frame in mapped.second_from(int(start)):
                for estimate in engine.step(frame):
                    newest = mapper.finish()
                    if any(each.in_saved for each in newest.located.values()):
                        poses += _in_map(estimate, newest, {})
        known = [each for each in poses if each[1] in mapped.poses]
        found.add(mapped.frames[int(start)].stamp_ns, mapped, known)
    return found


def jumps(predictor: Predictor, mapped: Mapped, config: Config, count: int) -> Found:
    """A run through the clip that is then carried off to random frames of it, `count` times."""
    settings = _settings(config)
    rng, found = np.random.default_rng(1), Found()
    period = int(np.median(np.diff([frame.stamp_ns for frame in mapped.frames])))
    shown: dict[int, int] = {}
    predictor.reset()
    with Mapper(settings.slam) as mapper, Engine(predictor, settings, mapper.take) as engine:
        for frame in mapped.frames:
            engine.step(frame)
        home = next(iter(mapper.finish().located.values())).island
        id_, stamp = mapped.frames[-1].id, mapped.frames[-1].stamp_ns
        segment = 0
        for start in rng.integers(0, mapped.last_start + 1, count):
            poses, began, first = [], stamp + period, id_ + 1
            for frame in mapped.second_from(int(start)):
                id_, stamp = id_ + 1, stamp + period
                shown[id_] = frame.id
                for estimate in engine.step(replace(frame, id=id_, stamp_ns=stamp)):
                    state = mapper.finish()
                    newest = next(reversed(state.located))
                    known = estimate.segment == segment or newest >= first
                    if known and state.located[newest].island == home:
                        poses += _in_map(estimate, state, shown)
                        segment = estimate.segment
            known_poses = [each for each in poses if each[1] in mapped.poses]
            found.add(began, mapped, known_poses)
    return found


def _in_map(
    estimate: Estimate, state: MapState, shown: dict[int, int]
) -> list[tuple[int, int, Float64]]:
    """Stamp, frame id in the clip and pose in the map of an estimate, where it is tracked."""
    T_map_odom = state.map_to_odom(1.0, np.zeros(3), estimate.T_odom_cam[:3, 3])
    if estimate.tracking_state is not TrackingState.TRACKING or T_map_odom is None:
        return []
    id_ = shown.get(estimate.frame_id, estimate.frame_id)
    return [(estimate.stamp_ns, id_, T_map_odom @ estimate.T_odom_cam)]


def _settings(config: Config, **slam: str) -> Config:
    return config.model_copy(
        update={"slam": config.slam.model_copy(update={"enabled": True, **slam})}
    )
