"""Published depth is complete where its surroundings tell it, moves little from frame to frame, and
is no surer than it proved to be."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.depth_map import DepthMap, unknown
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.depth import carry
from flow3r_ros.odometry.frame_depth import FrameDepth
from flow3r_ros.types import Bool
from test.odometry.plane import SCENE, depth_at, seen_at

STILL = np.zeros(seen_at(0).gray.shape, np.bool_)
NONE_MOVE = STILL[::2, ::2]


def settle(
    published: FrameDepth, index: int, depth: DepthMap, lost: bool = False, moving: Bool = NONE_MOVE
) -> DepthMap:
    """Publish a frame of which `depth` is known."""
    pose = None if lost else SCENE.pose(index)
    return published.settle(seen_at(index), pose, depth.every_second(), moving)


def moved(index: int, factor: float) -> DepthMap:
    """The true depth of a frame, times `factor`."""
    exact = depth_at(index, seen_at(index))
    return DepthMap(
        exact.inverse / np.float32(factor), np.float32(0.05) * exact.inverse / np.float32(factor)
    )


def change(before: DepthMap, after: DepthMap, first: int, second: int) -> float:
    """Median change of the depth of the same points from one frame to another."""
    T = invert(SCENE.pose(first)) @ SCENE.pose(second)
    seen, _ = carry(before, T, seen_at(first).camera)
    return float(np.nanmedian(np.abs(np.log(seen.inverse / after.inverse))))


def test_a_join_moves_depth_by_less_than_a_hundredth_a_frame_and_arrives() -> None:
    depth, last, steps = FrameDepth(), None, []
    for index in range(40):
        map_ = moved(index, 1.0 if index < 5 else 1.07)
        now = settle(depth, index, map_)
        if last is not None:
            steps.append(change(last, now, index - 1, index))
        last = now
    assert max(steps) < 0.01
    assert np.nanmedian(np.abs(last.inverse / moved(39, 1.07).inverse - 1)) < 0.005


def test_what_is_much_surer_than_before_is_taken_at_once() -> None:
    depth = FrameDepth()
    guess = moved(0, 1.2)
    settle(depth, 0, DepthMap(guess.inverse, 0.4 * guess.inverse))
    after = settle(depth, 1, moved(1, 1.0))
    assert np.nanmedian(np.abs(after.inverse / moved(1, 1.0).inverse - 1)) < 0.02


def test_moving_pixels_and_frames_without_a_pose_do_not_follow_the_past() -> None:
    moving = STILL.copy()
    moving[40:80, 60:120] = True
    depth = FrameDepth()
    settle(depth, 0, moved(0, 1.1))
    after = settle(depth, 1, moved(1, 1.0), moving=moving[::2, ::2])
    off = np.abs(after.inverse / moved(1, 1.0).inverse - 1)
    assert off[44:76, 64:116].max() < 0.01
    assert np.median(off[~moving]) > 0.05
    lost = settle(depth, 2, moved(2, 1.0), lost=True)
    assert np.abs(lost.inverse / moved(2, 1.0).inverse - 1).max() < 0.03


def test_holes_close_with_less_confidence_and_nothing_known_stays_nan() -> None:
    known = moved(0, 1.0)
    hole = STILL.copy()
    hole[50:60, 60:80] = True
    closed = settle(FrameDepth(), 0, known.where(~hole))
    assert np.isfinite(closed.inverse).all()
    around = np.ones_like(hole)
    around[49:61, 59:81] = False
    assert closed.confidence()[51:59, 61:79].max() < closed.confidence()[around].min()
    assert closed.confidence().max() < 0.9, "what a map has wrong as a whole no pixel knows"
    nothing = settle(FrameDepth(), 0, unknown(*hole.shape))
    assert np.isnan(nothing.inverse).all()
    assert not nothing.confidence().any()
