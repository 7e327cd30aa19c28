"""The map of a run that is driven offline: loops while it goes, refinement after it, and the
trajectory in the map."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flow3r_ros.config import SlamSettings
from flow3r_ros.report.record import RunRecord
from flow3r_ros.slam.frames import FrameTrack
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.slam.refine import Refined, refine, require_pycolmap
from flow3r_ros.types import Estimate, Float64
from flow3r_ros.wire.tum import write_tum

log = logging.getLogger(__name__)

MAP_FILE = "trajectory_map.tum"


class MapOfRun:
    """Collects the keyframes (`mapper.take` is the engine's listener) and the published poses of a
    run; `write` makes its trajectory in the map of them."""

    def __init__(self, mapper: Mapper, refine: bool, quiet: bool) -> None:
        self.mapper = mapper
        self._frames = FrameTrack()
        self._refine = refine
        self._quiet = quiet

    def beside(self, take: Callable[[Estimate], None]) -> Callable[[Estimate], None]:
        """`take`, and every estimate is kept here as well."""

        def both(estimate: Estimate) -> None:
            self._frames.add(estimate)
            take(estimate)

        return both

    def write(self, folder: Path, factor: float, record: RunRecord) -> dict[str, Any]:
        """Write `trajectory_map.tum`, of the frames that lie in the largest connected part of the
        map, and give it to the record.

        Args:
            factor: output units per odometry unit, at the end of the run.

        Returns:
            What `summary.json` says of loops and refinement.
        """
        state = self.mapper.finish()
        summary: dict[str, Any] = {}
        if self.mapper.graph is not None:
            summary["loops"] = {"closed": state.closed, "refused": dict(state.refused)}
        keyframes = state.largest_part()
        if self._refine and keyframes:
            keyframes, summary["refinement"] = self._refined(keyframes)
        trajectory = self._frames.in_map(keyframes, factor, record.title)
        summary["frames_in_map"] = 0 if trajectory is None else len(trajectory.stamps_ns)
        if trajectory is not None:
            write_tum(folder / MAP_FILE, trajectory)
        return summary

    def _refined(self, placed: dict[int, Float64]) -> tuple[dict[int, Float64], dict[str, Any]]:
        """The keyframes where refinement puts them, by frame id; those that it could not judge are
        left out, and their frames follow the keyframes around them."""
        keyframes = [each for each in self.mapper.store if each.frame_id in placed]
        poses = {each.key: placed[each.frame_id] for each in keyframes}
        loops = [] if self.mapper.graph is None else self.mapper.graph.loops
        pairs = [(each.first, each.second) for each in loops]
        pairs = [(a, b) for a, b in pairs if a in poses and b in poses]
        say = log.debug if self._quiet else lambda text: log.info("refinement: %s", text)
        result = refine(keyframes, poses, pairs, say)
        if not result.poses:
            return placed, {"keyframes": 0, "why": "too few points are seen by several keyframes"}
        numbers = {each.key: each.frame_id for each in keyframes}
        return {numbers[key]: pose for key, pose in result.poses.items()}, _in_words(result)


def _in_words(result: Refined) -> dict[str, Any]:
    return {
        "keyframes": len(result.poses),
        "points": result.points,
        "observations": result.observations,
        "error_px": {"before": round(result.before_px, 3), "after": round(result.after_px, 3)},
        "turned_deg": round(result.turn_deg, 3),
    }


@contextmanager
def map_of_run(settings: SlamSettings, refine: bool, quiet: bool) -> Iterator[MapOfRun | None]:
    """The map of a run, where the settings or `refine` want one; asks for what it needs before the
    run. Raises ConfigError where that is not installed."""
    if not (settings.enabled or refine):
        yield None
        return
    if refine:
        require_pycolmap()
    with Mapper(settings) as mapper:
        yield MapOfRun(mapper, refine, quiet)
