"""`~/save_map`: the voxel map as PLY, the trajectory as TUM and what is needed to interpret them,
in a folder that appears whole."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
import threading
from array import array
from datetime import datetime
from pathlib import Path

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.errors import OutputError
from flow3r_ros.geometry.lie import quaternion_from_matrix
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.publishers import MapPoints
from flow3r_ros.ros.worker import Tally
from flow3r_ros.types import Estimate
from flow3r_ros.wire.ply import write_ply

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
            self._poses.extend(
                (*estimate.T_odom_cam[:3, 3], *quaternion_from_matrix(estimate.T_odom_cam[:3, :3]))
            )
            if len(self._stamps) > MAX_POSES:
                del self._stamps[: MAX_POSES // 4], self._poses[: 7 * (MAX_POSES // 4)]
            self.scale_state, self.scale_sigma = estimate.scale_state.value, estimate.scale_sigma

    def clear(self) -> None:
        """Forget every pose."""
        with self._lock:
            self._stamps, self._poses = array("q"), array("d")
            self.scale_state, self.scale_sigma = "relative", float("inf")

    def tum_lines(self) -> list[str]:
        """`timestamp tx ty tz qx qy qz qw`, camera-to-world of the optical frame, seconds printed
        from integer nanoseconds."""
        with self._lock:
            stamps, poses = list(self._stamps), np.array(self._poses).reshape(-1, 7)
        return [
            f"{ns // 1_000_000_000}.{ns % 1_000_000_000:09d} "
            + " ".join(f"{value:.9f}" for value in pose)
            for ns, pose in zip(stamps, poses, strict=True)
        ]


def save_map(
    config: Config, points: MapPoints | None, trail: Trail, loaded: Loaded, tally: Tally
) -> Path:
    """Write `map.ply`, `trajectory.tum` and `metadata.json` into a new folder below `node.save_dir`
    and return it.

    Raises OutputError when there is no map yet or the folder cannot be written; then nothing is
    left behind.
    """
    if points is None or not len(points[0]):
        raise OutputError("there is no map yet", "wait until frames are tracked")
    base = Path(config.node.save_dir).expanduser()
    name = datetime.now().strftime("map_%Y-%m-%d_%H-%M-%S_%f")
    temporary: Path | None = None
    try:
        base.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{name}_", dir=base))
        write_ply(temporary / "map.ply", *points)
        lines = trail.tum_lines()
        (temporary / "trajectory.tum").write_text(
            "".join(f"{line}\n" for line in lines), encoding="ascii"
        )
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
        (temporary / "metadata.json").write_text(
            json.dumps(metadata, indent=2) + "\n", encoding="utf-8"
        )
        os.chmod(temporary, 0o755)
        temporary.rename(base / name)
    except OSError as error:
        raise OutputError(
            f"{base}: cannot be written ({error.strerror})",
            "set node.save_dir to a folder that can",
        ) from error
    finally:
        if temporary is not None and temporary.exists():
            shutil.rmtree(temporary, ignore_errors=True)
    return base / name
