"""Where every frame lies in the map: between the keyframes around it, by what the odometry says of
it and them."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

from flow3r_ros.geometry.lie import interpolate, invert, rigid, sim3_parts
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Estimate, Float64


class FrameTrack:
    """The published poses of a run, one row of numbers a frame, from which its trajectory in the
    map is made."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._stamps = array("q")
        self._segments = array("q")
        self._poses = array("d")

    def add(self, estimate: Estimate) -> None:
        """Keep the pose of a frame that has one."""
        if estimate.tracking_state.has_pose:
            self._ids.append(estimate.frame_id)
            self._stamps.append(estimate.stamp_ns)
            self._segments.append(estimate.segment)
            self._poses.extend(estimate.T_odom_cam[:3].ravel().tolist())

    def in_map(self, keyframes: dict[int, Float64], factor: float, name: str) -> Trajectory | None:
        """The trajectory in the map, of the segments that have keyframes in it; None without any.

        A frame lies where the keyframes before and after it put it, weighed by how near they are.

        Args:
            keyframes: Sim(3) poses `[4, 4]` in the map, by frame id.
            factor: output units per odometry unit.
        """
        stamps, poses = np.array(self._stamps, np.int64), self._published()
        rows = {id_: row for row, id_ in enumerate(self._ids)}
        known: dict[int, list[int]] = {}
        for id_ in sorted(keyframes.keys() & rows.keys()):
            known.setdefault(self._segments[rows[id_]], []).append(id_)
        found: dict[int, Float64] = {}
        for row, (id_, segment) in enumerate(zip(self._ids, self._segments, strict=True)):
            if segment not in known:
                continue
            after = bisect_left(known[segment], id_)
            around = known[segment][max(after - 1, 0) : after + 1]
            placed = [
                carried(keyframes[each], poses[rows[each]], poses[row], factor) for each in around
            ]
            if len(placed) == 1:
                found[row] = placed[0]
            else:
                share = (id_ - around[0]) / (around[1] - around[0])
                found[row] = interpolate(*placed, share)
        if not found:
            return None
        kept = _increasing(list(found), stamps)
        return Trajectory(stamps[kept], np.stack([found[row] for row in kept]), name)

    def _published(self) -> Float64:
        poses = np.tile(np.eye(4), (len(self._ids), 1, 1))
        poses[:, :3] = np.array(self._poses).reshape(-1, 3, 4)
        return poses


def carried(S_map_key: Float64, T_key: Float64, T_frame: Float64, factor: float) -> Float64:
    """Pose `[4, 4]` in the map, output units, of a frame published at `T_frame` beside a keyframe
    published at `T_key` that lies at the Sim(3) `S_map_key` in the map, odometry units."""
    scale, R, t = sim3_parts(S_map_key)
    step = invert(T_key) @ T_frame
    return rigid(R @ step[:3, :3], R @ (scale * step[:3, 3]) + factor * t)


def _increasing(rows: list[int], stamps: np.ndarray) -> list[int]:
    """Rows whose stamps increase: a recording that starts over stamps its frames again."""
    kept: list[int] = []
    for row in rows:
        if not kept or stamps[row] > stamps[kept[-1]]:
            kept.append(row)
    return kept
