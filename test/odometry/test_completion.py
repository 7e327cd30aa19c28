"""Depth of a new frame: handed on by the keyframe, triangulated, and completed by the network."""

from __future__ import annotations

import numpy as np
import pytest
from flow3r_ros.odometry.completion import complete_depth, propagate_depth, refresh_depth

from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert, se3_exp
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Prediction, Seam
from test.geometry.views import exact_correspondence, render
from test.odometry.room import track_from, view_at

STEP = se3_exp([0.2, 0.02, 0.1, 0.01, -0.02, 0.01])


def new_view(pose: np.ndarray) -> View:
    view = view_at(pose, 1)
    view.forget_depth()
    return view


def prediction_of(view: View, factor: float, confidence: float = 0.9) -> Prediction:
    """The true depth times a factor, as a network on the same grid says it."""
    depth = factor * render(view.pose).depth
    points = np.zeros((1, *depth.shape, 3), np.float32)
    points[0, ..., 2] = depth
    sure = np.full((1, *depth.shape), confidence, np.float32)
    return Prediction((view.id,), points, sure, np.eye(4)[None])


def error_of(view: View) -> float:
    known = np.isfinite(view.inverse_depth)
    truth = render(view.pose).depth
    return float(np.median(np.abs(1.0 / view.inverse_depth[known] / truth[known] - 1)))


def seam(scale: float, accepted: bool, inliers: float = 0.0) -> Seam:
    return Seam(np.eye(4), scale, inliers, 0.1, accepted)


def test_a_keyframe_hands_its_depth_on_and_parallax_sharpens_it() -> None:
    reference, view = view_at(np.eye(4), 0), new_view(STEP)
    known = propagate_depth(view, track_from(reference, view), links=1)
    assert view.base is not None
    covered = np.isfinite(known.inverse)
    assert covered.mean() > 0.5
    assert np.median(np.abs(known.depth()[covered] / render(STEP).depth[covered] - 1)) < 2e-3
    both = covered & np.isfinite(view.base.inverse)
    assert np.median(known.sigma[both]) < np.median(view.base.sigma[both])
    assert view.moving.mean() < 0.02


def test_a_camera_at_rest_takes_what_is_handed_on_and_triangulates_nothing() -> None:
    reference, view = view_at(np.eye(4), 0), new_view(np.eye(4))
    known = propagate_depth(view, track_from(reference, view, still=reference), links=1)
    assert known is view.base


def test_the_network_fills_what_geometry_does_not_know() -> None:
    reference, view = view_at(np.eye(4), 0), new_view(STEP)
    known = propagate_depth(view, track_from(reference, view), links=1)
    hole = known.inverse[:60].copy()
    known.inverse[:60], known.sigma[:60] = np.nan, np.inf
    assert np.isfinite(hole).any()
    complete_depth(view, known, prediction_of(view, 2.5), None, None)
    assert np.isfinite(view.inverse_depth[:60]).all()
    assert error_of(view) < 0.02


def test_without_network_or_geometry_nothing_is_claimed() -> None:
    view = new_view(np.eye(4))
    complete_depth(view, None, None, None, None)
    assert np.isnan(view.inverse_depth).all()
    assert np.isinf(view.sigma).all()


@pytest.mark.parametrize(
    ("joint", "median_depth", "expected"),
    [
        (seam(0.4, accepted=True), None, 0.4),
        (seam(0.4, accepted=False, inliers=0.2), None, 0.4),
        (seam(np.nan, accepted=False), "keep", 0.4),
        (None, None, 1.0),
    ],
)
def test_the_scale_of_the_network_comes_from_the_seam_else_from_the_scene(
    joint: Seam | None, median_depth: str | None, expected: float
) -> None:
    view = new_view(np.eye(4))
    truth = render(view.pose).depth
    so_far = float(np.median(truth)) if median_depth else None
    complete_depth(view, None, prediction_of(view, 2.5), joint, so_far)
    np.testing.assert_allclose(1.0 / view.inverse_depth, expected * 2.5 * truth, rtol=0.05)
    trusted = joint is None or joint.accepted
    assert (view.predicted_depth is not None) == trusted


def test_a_keyframe_is_triangulated_anew_after_its_pose_moved() -> None:
    reference, view = view_at(np.eye(4), 0), view_at(STEP, 1)
    flow, _, _ = exact_correspondence(invert(STEP), STEP)
    view.base = DepthMap(0.5 * view.inverse_depth, view.sigma)
    refresh_depth(view, {reference.id: flow}, [reference])
    assert error_of(view) < 0.01
    lonely = view_at(STEP, 2)
    before = lonely.inverse_depth
    refresh_depth(lonely, {}, [reference])
    assert lonely.inverse_depth is before
