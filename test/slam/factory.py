"""Keyframes of the ray-cast room as the odometry would tell of them, with a drift made to order."""

from __future__ import annotations

from functools import cache

import numpy as np

from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert, rigid, sim3, so3_exp
from flow3r_ros.odometry.corners import Reference
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.odometry.relocalisation import describe
from flow3r_ros.odometry.views import View
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.types import Float64
from test.geometry.views import CAMERA, render
from test.odometry.plane import reference_at
from test.odometry.room import view_at

SECOND_NS = 1_000_000_000
ROUND = 24
"""keyframes, a second apart, of one way to and fro before the walls"""


def pose(turn_deg: float, x: float = 0.0, z: float = 0.0) -> Float64:
    """A camera in the room, turned to the left."""
    return rigid(so3_exp([0.0, -np.radians(turn_deg), 0.0]), [x, 0.0, z])


def way(index: int) -> Float64:
    """True pose at a moment of the way: from the back wall to the left one and back."""
    share = (1.0 - np.cos(2.0 * np.pi * index / ROUND)) / 2.0
    return pose(55.0 * share, 0.9 - 1.4 * share, 0.5 * np.sin(2.0 * np.pi * index / ROUND))


@cache
def _seen(index: int, mirrored: bool) -> tuple[View, DepthMap]:
    true = render(way(index))
    seen = view_at(way(index), index)
    depth = np.float32(1.0) / true.depth
    if mirrored:
        rgb = np.ascontiguousarray(seen.frame.rgb[:, ::-1])
        seen = View(
            type(seen.frame)(index, seen.frame.stamp_ns, rgb, CAMERA),
            np.ascontiguousarray(seen.tracking[:, ::-1]), seen.lens,
            np.ascontiguousarray(seen.rgb[:, ::-1]), np.ascontiguousarray(seen.gray[:, ::-1]),
            seen.camera,
        )  # fmt: skip
        depth = np.ascontiguousarray(depth[:, ::-1])
    return seen, DepthMap(depth, 0.02 * depth)


def finished(
    index: int,
    told: Float64,
    id_: int | None = None,
    segment: int = 0,
    unit: float = 1.0,
    mirrored: bool = False,
    adjusted: dict[int, Float64] | None = None,
) -> Finished:
    """The keyframe of a moment, told to lie at `told` in a unit of `unit` metres."""
    view, depth = _seen(index % ROUND, mirrored)
    number = index if id_ is None else id_
    frame = type(view.frame)(number, number * SECOND_NS, view.frame.rgb, CAMERA)
    view = View(frame, view.tracking, view.lens, view.rgb, view.gray, view.camera)
    scaled = DepthMap(depth.inverse * np.float32(unit), depth.sigma * np.float32(unit))
    moving = np.zeros(depth.inverse.shape, np.bool_)
    nothing = reference_at(0)
    reference = Reference(view, told, scaled, moving, nothing.ids, nothing.pixels, nothing.points)
    return Finished(reference, describe(view), adjusted or {}, segment)


def keyframe(index: int, key: int | None = None, **how: object) -> MapKeyframe:
    """The same as the map keeps it."""
    told = finished(index, way(index), **how)  # type: ignore[arg-type]
    return MapKeyframe.of(told, index if key is None else key, told.segment)


def drifting(count: int, turn_deg: float = 0.3, growth: float = 1.006) -> list[Float64]:
    """The way as an odometry tells it that turns and grows a little with every keyframe."""
    told, unit = [np.eye(4)], 1.0
    wrong = rigid(so3_exp([0.0, np.radians(turn_deg), 0.0]), np.zeros(3))
    for index in range(1, count):
        step = invert(way(index - 1)) @ way(index)
        unit *= growth
        told.append(told[-1] @ (sim3(1.0, step[:3, :3], unit * step[:3, 3]) @ wrong))
    return told
