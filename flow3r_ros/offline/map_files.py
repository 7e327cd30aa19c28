"""A map for other programs: its keyframes, its cloud, and both as a recording for rerun."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flow3r_ros.geometry.lie import rigid_part, sim3_parts
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.slam.export import cloud
from flow3r_ros.slam.saved import SavedMap
from flow3r_ros.types import Float32, TrackingState, UInt8
from flow3r_ros.wire.pcd import write_pcd
from flow3r_ros.wire.ply import write_ply
from flow3r_ros.wire.tum import pose_numbers, tum_line


def write_cloud(folder: Path, saved: SavedMap, kind: str) -> int:
    """Write the largest connected part of a map into a folder that exists: `keyframes.tum`, and
    `cloud.ply`, `cloud.pcd` or, for the kind `rerun`, `map.rrd`; returns the number of points.

    Raises OutputError where rerun is not installed.
    """
    found = cloud(saved)
    lines = [
        tum_line(each.stamp_ns, pose_numbers(rigid_part(saved.poses[each.key])))
        for each in saved.largest_part()
    ]
    (folder / "keyframes.tum").write_text("".join(lines), encoding="ascii")
    if kind == "rerun":
        _write_recording(folder / "map.rrd", saved, found[0], found[1])
    else:
        write = {"ply": write_ply, "pcd": write_pcd}[kind]
        write(folder / f"cloud.{kind}", *found)
    return len(found[0])


def _write_recording(path: Path, saved: SavedMap, points: Float32, rgb: UInt8) -> None:
    """Keyframes in their order, with picture and depth in the map's unit; loops and the cloud."""
    part = saved.largest_part()
    centres = {each.key: np.asarray(saved.poses[each.key][:3, 3]) for each in part}
    with RerunLog(path, "map") as log:
        log.cloud("world/map", points, rgb, static=True)
        log.way_in_map(np.stack([*centres.values()]))
        for each in part:
            S = saved.poses[each.key]
            log.at(each.stamp_ns, rigid_part(S), TrackingState.TRACKING)
            log.keyframe(S)
            scale = np.float32(sim3_parts(S)[0])
            log.picture(each.grid, scale * each.depth.depth(), each.rgb())
        log.loops(
            [
                (centres[loop.first], centres[loop.second])
                for loop in saved.loops
                if loop.first in centres and loop.second in centres
            ]
        )
