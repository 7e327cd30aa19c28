"""Where every frame lies in the map: between the keyframes around it, by what the odometry says of
it and them."""

from __future__ import annotations

from array import array
from bisect import bisect_left

import numpy as np

from flow3r_ros.geometry.lie import interpolate, invert, rigid, sim3_parts
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Estimate, Float64, TrackingState


class FrameTrack:
    """The published poses of a run, one row of numbers a frame, from which its trajectory in the
    map is made."""

    def __init__(self) -> None:
        self._ids = array("q")
        self._stamps = array("q")
        self._segments = array("q")
        self._has_pose = array("b")
        self._verified = array("b")
        self._poses = array("d")

    def add(self, estimate: Estimate) -> None:
        """Keep a frame's published pose, and how far it can be trusted."""
        state = estimate.tracking_state
        self._ids.append(estimate.frame_id)
        self._stamps.append(estimate.stamp_ns)
        self._segments.append(estimate.segment)
        self._has_pose.append(state.has_pose)
        self._verified.append(state is not TrackingState.DEGRADED and state.has_pose)
        self._poses.extend(estimate.T_odom_cam[:3].ravel().tolist())

    def __contains__(self, frame_id: int) -> bool:
        row = bisect_left(self._ids, frame_id)
        return row < len(self._ids) and self._ids[row] == frame_id

    def stamp_ns(self, frame_id: int) -> int:
        """Stamp of a frame. Raises KeyError for one that was not added."""
        return self._stamps[self._row(frame_id)]

    def centre(self, frame_id: int) -> Float64:
        """Published camera centre `[3]` of a frame. Raises KeyError for one that was not added."""
        begin = 12 * self._row(frame_id)
        return np.array(self._poses[begin : begin + 12]).reshape(3, 4)[:, 3]

    def _row(self, frame_id: int) -> int:
        row = bisect_left(self._ids, frame_id)
        if row == len(self._ids) or self._ids[row] != frame_id:
            raise KeyError(frame_id)
        return row

    def in_map(self, placed: dict[int, Float64], factor: float, name: str) -> Trajectory | None:
        """The trajectory in the map, of the segments that have keyframes in it; None without any.

        A frame lies where the map puts it, or where the placed frames before and after it do,
        weighed by how near they are.

        Args:
            placed: Sim(3) poses `[4, 4]` in the map of keyframes and other frames, by frame id.
            factor: output units per odometry unit.
        """
        stamps, poses = np.array(self._stamps, np.int64), self._published()
        rows = {id_: row for row, id_ in enumerate(self._ids)}
        anchors: dict[int, list[int]] = {}
        for id_ in sorted(placed.keys() & rows.keys()):
            if self._verified[rows[id_]]:
                anchors.setdefault(self._segments[rows[id_]], []).append(id_)
        found: dict[int, Float64] = {}
        for row, id_ in enumerate(self._ids):
            if id_ in placed:
                found[row] = carried(placed[id_], np.eye(4), np.eye(4), factor)
                continue
            known = anchors.get(self._segments[row], [])
            if not known or not self._has_pose[row]:
                continue
            after = bisect_left(known, id_)
            around = known[max(after - 1, 0) : after + 1]
            guesses = [
                carried(placed[each], poses[rows[each]], poses[row], factor) for each in around
            ]
            share = (id_ - around[0]) / max(around[-1] - around[0], 1)
            found[row] = interpolate(guesses[0], guesses[-1], share)
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
