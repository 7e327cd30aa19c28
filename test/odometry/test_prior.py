"""The evidence of a window holds what geometry knows, in the window's own unit, and nothing that is
only a guess."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from flow3r_ros.odometry.prior import SURE, window_evidence

from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.odometry.bundle import Bundle
from test.odometry.room import track_from, view_at

GRID = (112, 84)
STEP = se3_exp([0.2, 0.02, 0.1, 0.01, -0.02, 0.01])


def test_poses_depth_and_flow_of_a_tracked_frame_are_told() -> None:
    reference, view = view_at(np.eye(4), 0), view_at(STEP, 1)
    known = DepthMap(view.inverse_depth, view.sigma)
    track = replace(track_from(reference, view), depth=known)
    evidence = window_evidence([reference], [view], [track], Bundle(), GRID)
    assert evidence.planes.shape == (2, 10, GRID[1] // 2, GRID[0] // 2)
    np.testing.assert_allclose(evidence.poses[0], np.eye(4), atol=1e-12)
    told = evidence.poses[1].copy()
    told[:3, 3] *= evidence.scale
    np.testing.assert_allclose(told, STEP, atol=1e-9)
    for plane, seen in zip(evidence.planes, (reference, view), strict=True):
        depth = np.exp(plane[2]) * evidence.scale
        truth = float(np.median(1.0 / seen.inverse_depth))
        assert abs(np.median(depth[plane[3] > 0]) / truth - 1) < 0.05
    assert np.abs(evidence.planes[0, 7:9]).max() > 0, "flow to the next frame"
    assert np.abs(evidence.planes[1, 4:6]).max() > 0, "flow to the previous frame"
    assert not evidence.planes[0, 4:7].any(), "the first frame has no previous one"


def test_depth_that_is_not_sure_is_not_told() -> None:
    reference, view = view_at(np.eye(4), 0, relative_sigma=2 * SURE), view_at(STEP, 1)
    evidence = window_evidence([reference], [view], [track_from(reference, view)], Bundle(), GRID)
    assert not evidence.planes[:, 2:4].any()
    assert evidence.scale == 1.0


def test_without_tracks_only_the_rays_are_told() -> None:
    reference, view = view_at(np.eye(4), 0), view_at(STEP, 1)
    evidence = window_evidence([reference], [view], [None], Bundle(), GRID)
    assert np.abs(evidence.planes[:, :2]).max() > 0.3
    assert not evidence.planes[:, 2:].any()
    np.testing.assert_array_equal(evidence.poses, np.repeat(np.eye(4)[None], 2, axis=0))
