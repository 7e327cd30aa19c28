"""`~/save_map`: the voxel map as PLY, the trajectory as TUM, the keyframe map where there is one,
and what is needed to interpret them, in a folder that appears whole."""

from __future__ import annotations

import json
import threading
from array import array
from datetime import datetime
from pathlib import Path

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.errors import OutputError
from flow3r_ros.paths import OutputFolder
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.publishers import MapPoints
from flow3r_ros.ros.worker import Tally
from flow3r_ros.slam.disk import write_map
from flow3r_ros.types import Estimate, ScaleState
from flow3r_ros.wire.ply import write_ply
from flow3r_ros.wire.tum import pose_numbers, tum_line

MAX_POSES = 200_000
"""poses kept for the saved trajectory, the latest ones (64 bytes each)"""


class Trail:
    """The poses estimated since start or reset, compact and bounded; those while LOST are left
    out."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.clear()

    def add(self, estimate: Estimate) -> None:
        """Append one estimate's pose."""
        if not estimate.tracking_state.has_pose:
            return
        with self._lock:
            self._stamps.append(estimate.stamp_ns)
            self._poses.extend(pose_numbers(estimate.T_odom_cam))
            if len(self._stamps) > MAX_POSES:
                del self._stamps[: MAX_POSES // 4], self._poses[: 7 * (MAX_POSES // 4)]
            self.scale_state, self.scale_sigma = estimate.scale_state.value, estimate.scale_sigma

    def clear(self) -> None:
        """Forget every pose."""
        with self._lock:
            self._stamps, self._poses = array("q"), array("d")
            self.scale_state, self.scale_sigma = "relative", float("inf")

    def tum_lines(self) -> list[str]:
        """The lines of `trajectory.tum` (`wire.tum`)."""
        with self._lock:
            stamps, poses = list(self._stamps), np.array(self._poses).reshape(-1, 7)
        return [tum_line(ns, pose) for ns, pose in zip(stamps, poses, strict=True)]


def save_dir(config: Config) -> Path:
    """The folder that maps are saved in. Raises OutputError for that of an unknown user."""
    try:
        return Path(config.node.save_dir).expanduser()
    except RuntimeError as error:
        raise OutputError(
            f"node.save_dir {config.node.save_dir}: {error}", "give a full path"
        ) from error


def save_map(
    config: Config, points: MapPoints | None, trail: Trail, loaded: Loaded, tally: Tally
) -> Path:
    """Write `map.ply`, `trajectory.tum`, `metadata.json` and, with `slam.enabled`, the keyframe map
    `keyframes/` into a new folder below `node.save_dir`, and return it.

    Raises OutputError when there is no map yet or the folder cannot be written; then nothing is
    left behind. What a killed node left goes when a node starts (`remove_leftovers` of `save_dir`)
    or saves there.
    """
    if points is None or not len(points[0]):
        raise OutputError("there is no map yet", "wait until frames are tracked")
    name = datetime.now().strftime("map_%Y-%m-%d_%H-%M-%S_%f")
    with OutputFolder(save_dir(config) / name) as unfinished:
        write_ply(unfinished.path / "map.ply", *points)
        lines = trail.tum_lines()
        (unfinished.path / "trajectory.tum").write_text("".join(lines), encoding="ascii")
        metadata = {
            "frame": "optical frame of the first camera (x right, y down, z forward)",
            "points": len(points[0]),
            "poses": len(lines),
            "scale_state": trail.scale_state,
            "scale_sigma": trail.scale_sigma if np.isfinite(trail.scale_sigma) else None,
            "model": loaded.model,
            "weights_sha256": loaded.weights_sha256,
            "weights_license": loaded.weights_license,
            "frames_received": tally.received,
            "frames_estimated": tally.estimated,
            "frames_dropped": dict(tally.drops),
            "settings": config.model_dump(),
        }
        if loaded.mapper is not None:
            (unfinished.path / "keyframes").mkdir()
            scale = loaded.engine.scale
            metric = scale.state is ScaleState.METRIC
            write_map(unfinished.path / "keyframes", loaded.mapper.snapshot(scale.factor, metric))
        (unfinished.path / "metadata.json").write_text(
            json.dumps(metadata, indent=2) + "\n", encoding="utf-8"
        )
    return unfinished.final
