"""The map of a run that is driven offline: loops while it goes, refinement after it, and the
trajectory in the map."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from flow3r_ros.config import SlamSettings
from flow3r_ros.geometry.lie import rigid, rigid_part
from flow3r_ros.odometry.scale import Scale
from flow3r_ros.report.record import RunRecord
from flow3r_ros.slam.disk import write_map
from flow3r_ros.slam.frames import FrameTrack
from flow3r_ros.slam.loops import Loop
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.slam.picture_matches import require_pycolmap
from flow3r_ros.slam.pictures import FramePictures, RefineView
from flow3r_ros.slam.refine import NOTHING, Refined, refine
from flow3r_ros.types import Estimate, Float64, Frame, ScaleState
from flow3r_ros.wire.tum import write_tum

log = logging.getLogger(__name__)

MAP_FILE, MAP_FOLDER = "trajectory_map.tum", "map"


class MapOfRun:
    """Collects the keyframes (`mapper.take` is the engine's listener) and the published poses of a
    run; `write` makes its trajectory in the map of them."""

    def __init__(self, mapper: Mapper, refine: bool, quiet: bool) -> None:
        self.mapper = mapper
        self._frames = FrameTrack()
        self._pictures = FramePictures() if refine else None
        self._quiet = quiet
        self._refine_s = 0.0

    def stage_ms(self, frames: int) -> dict[str, float]:
        """Milliseconds a frame that map and refinement took of a run of so many frames, once it is
        written; both work beside or after the frames."""
        spent = {"map": self.mapper.busy_s, "refine": self._refine_s}
        return {stage: round(1e3 * each / frames, 3) for stage, each in spent.items() if each}

    def see(self, frame: Frame) -> None:
        """A frame goes into the engine."""
        if self._pictures is not None:
            self._pictures.add(frame)

    def beside(self, take: Callable[[Estimate], None]) -> Callable[[Estimate], None]:
        """`take`, and every estimate is kept here as well."""

        def both(estimate: Estimate) -> None:
            self._frames.add(estimate)
            take(estimate)

        return both

    def snapshot(self) -> dict[str, Any]:
        """What is known so far, as objects that pickle, for a run that goes on."""
        return {
            "mapper": self.mapper.remembered(),
            "frames": self._frames,
            "pictures": self._pictures,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from what `snapshot` gave."""
        self.mapper.restore(snapshot["mapper"])
        self._frames, self._pictures = snapshot["frames"], snapshot["pictures"]

    def write(
        self, folder: Path, scale: Scale, record: RunRecord, partial: bool = False
    ) -> dict[str, Any]:
        """Write `trajectory_map.tum`, of the frames that lie in the largest connected part of the
        map, and with `slam.enabled` the map itself, `map/`; give trajectory and loops to the
        record.

        Args:
            scale: of the output, at the end of the run.
            partial: the run was interrupted: nothing is refined, and what is written gives way to
                that of the run that goes on.

        Returns:
            What `summary.json` says of loops and refinement.
        """
        shutil.rmtree(folder / MAP_FOLDER, ignore_errors=True)
        state, factor = self.mapper.finish(), scale.factor
        summary: dict[str, Any] = {}
        placed = state.largest_part(factor)
        refined = NOTHING
        if self.mapper.map.graph is not None:
            summary["loops"] = {
                "closed": state.closed,
                "refused": dict(state.refused),
                "evidence": [_said(*each) for each in self.mapper.evidence()],
            }
        if self._pictures is not None and partial:
            summary["refinement"] = {"placed": 0, "why": "the run was interrupted"}
        elif self._pictures is not None and placed:
            begun = perf_counter()
            refined, summary["refinement"] = self._refined(placed, self._pictures)
            self._refine_s = perf_counter() - begun
            placed = refined.poses or placed
        trajectory = self._frames.in_map(placed, factor, record.title)
        if trajectory is not None and refined.bridged:
            there = set(trajectory.stamps_ns.tolist())
            bridged = {
                id_: pose
                for id_, pose in refined.bridged.items()
                if id_ in self._frames and self._frames.stamp_ns(id_) not in there
            }
            summary["refinement"]["bridged"] = sorted(bridged)
            trajectory = self._frames.in_map(placed | bridged, factor, record.title)
        summary["frames_in_map"] = 0 if trajectory is None else len(trajectory.stamps_ns)
        if trajectory is not None:
            write_tum(folder / MAP_FILE, trajectory)
            record.mapped = trajectory
        stamps = [[self._frames.stamp_ns(each) for each in loop] for loop in state.loops]
        record.loops = np.array(stamps, np.int64).reshape(-1, 2)
        if self.mapper.map.graph is not None and placed:
            self._save(folder / MAP_FOLDER, scale, refined)
        return summary

    def loops(self) -> list[tuple[Float64, Float64]]:
        """The published camera centres `[3]` of the frames that loops connect, as known by now."""
        return [
            (self._frames.centre(first), self._frames.centre(second))
            for first, second in self.mapper.state.loops
        ]

    def _save(self, folder: Path, scale: Scale, refined: Refined) -> None:
        """The map with its keyframes where refinement put them, if it did, and their depth in its
        unit."""
        factor = scale.factor
        saved = self.mapper.snapshot(factor, scale.state is ScaleState.METRIC)
        own = {each.frame_id: each for each in self.mapper.own_keyframes()}
        kept = {id_: each.key for id_, each in own.items() if each.key in saved.poses}
        poses = {
            kept[id_]: rigid(pose[:3, :3], factor * pose[:3, 3])
            for id_, pose in refined.poses.items()
            if id_ in kept
        }
        units = {
            kept[id_]: factor * unit for id_, unit in refined.units(own).items() if id_ in kept
        }
        folder.mkdir()
        write_map(folder, saved.moved(poses, units))

    def _refined(
        self, placed: dict[int, Float64], pictures: FramePictures
    ) -> tuple[Refined, dict[str, Any]]:
        """The frames where refinement puts them, by frame id, none where it fails; keyframes that
        it could not judge are left out, and their frames follow those around them."""
        keyframes = [each for each in self.mapper.own_keyframes() if each.frame_id in placed]
        known = [
            RefineView(each.frame_id, each.picture, each.camera, rigid_part(placed[each.frame_id]))
            for each in keyframes
        ]
        views = sorted([*known, *pictures.between(keyframes)], key=lambda view: view.frame_id)
        ids = {each.frame_id for each in keyframes}
        pairs = [loop for loop in self.mapper.state.loops if {*loop} <= ids]
        say = log.debug if self._quiet else lambda text: log.info("refinement: %s", text)
        try:
            result = refine(views, pairs, say)
        except (RuntimeError, ValueError) as error:
            log.warning("refinement failed, the run stays as it is: %s", error)
            return NOTHING, {"placed": 0, "why": f"it failed: {error}"}
        if not result.poses and result.points:
            log.warning("refinement explains matches no better than the run, which stays as it is")
            return NOTHING, _in_words(result, len(views)) | {
                "why": "the run explains matches as well"
            }
        if not result.poses:
            return NOTHING, {
                "placed": 0,
                "why": "the camera hardly moved, or pictures share too little",
            }
        return result, _in_words(result, len(views))


def _said(first: int, second: int, loop: Loop) -> dict[str, Any]:
    """What speaks for a loop between two frames."""
    return {
        "frames": [first, second],
        "matches": loop.matches,
        "inliers": loop.inliers,
        "likeness": round(loop.likeness, 3),
        "neighbour_off_deg": round(float(np.degrees(loop.disagreement)), 3),
    }


def _in_words(result: Refined, views: int) -> dict[str, Any]:
    return {
        "pictures": views,
        "placed": len(result.poses),
        "points": result.points,
        "observations": result.observations,
        "error_px": {"before": round(result.before_px, 3), "after": round(result.after_px, 3)},
        "held_out_px": {
            "before": round(result.held_out_before_px, 3),
            "after": round(result.held_out_after_px, 3),
        },
        "lens_bend_px": round(result.bend_px, 2),
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
