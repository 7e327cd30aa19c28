"""Inverse depth with sigma: what each source says, and how they are fused."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.geometry.depth_map import HALF_SIGMA, DepthMap, unknown
from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.odometry.depth import (
    fit_to,
    from_network,
    fuse,
    gather,
    parallax_and_overlap,
    triangulated,
)
from test.geometry.views import CAMERA, exact_correspondence, render

STEP = se3_exp([0.25, 0.02, 0.1, 0.01, -0.03, 0.01])
SHAPE = (CAMERA.height, CAMERA.width)


def constant(inverse: float, sigma: float) -> DepthMap:
    return DepthMap(np.full((2, 3), inverse, np.float32), np.full((2, 3), sigma, np.float32))


def test_depth_and_confidence_of_a_map() -> None:
    sure, doubtful = constant(0.5, 0.0), constant(0.5, 0.5 * HALF_SIGMA)
    np.testing.assert_allclose(sure.depth(), 2.0)
    np.testing.assert_allclose(sure.confidence(), 1.0)
    np.testing.assert_allclose(doubtful.confidence(), 0.5)
    nothing = unknown(2, 3)
    assert np.isnan(nothing.depth()).all()
    assert not nothing.confidence().any()


def test_the_networks_depth_is_scaled_and_what_is_invalid_stays_unknown() -> None:
    depth = np.full((20, 30), 2.0, np.float32)
    depth[:, :10] = -1.0
    confidence = np.full((20, 30), 1.0, np.float32)
    confidence[:, 20:] = 0.5
    found = from_network(depth, confidence, 3.0, 60, 40)
    assert np.isnan(found.inverse[:, :18]).all()
    assert np.isinf(found.sigma[:, :18]).all()
    np.testing.assert_allclose(found.depth()[:, 24:], 6.0, rtol=1e-5)
    assert found.sigma[0, 55] == pytest.approx(2 * found.sigma[0, 30], rel=1e-5)


def test_triangulation_measures_the_room_and_is_silent_without_texture() -> None:
    flow, view, _ = exact_correspondence(STEP)
    found = triangulated(flow, CAMERA, STEP)
    known = np.isfinite(found.inverse)
    assert known.mean() > 0.5
    assert np.median(np.abs(found.depth()[known] / view.depth[known] - 1)) < 1e-3
    assert (found.sigma[known] > 0).all()
    flat = exact_correspondence(STEP)[0]
    flat.texture[:] = 0.0
    assert np.isnan(triangulated(flat, CAMERA, STEP).inverse).all()


def test_depth_is_gathered_along_the_flow_into_the_other_view() -> None:
    flow, view, _ = exact_correspondence(STEP)
    other = render(STEP).depth
    inverse = (1.0 / other).astype(np.float32)
    source = DepthMap(inverse, np.float32(0.02) * inverse)
    found = gather(source, flow.flow, flow.covisibility, STEP, CAMERA)
    known = np.isfinite(found.inverse)
    assert known.mean() > 0.5
    error = np.abs(found.depth()[known] / view.depth[known] - 1)
    assert np.median(error) < 1e-3
    assert np.percentile(error, 95) < 0.02
    blind = gather(source, flow.flow, np.zeros(SHAPE, np.float32), STEP, CAMERA)
    assert np.isnan(blind.inverse).all()


def test_fusion_weighs_by_information_and_the_surer_wins_a_contradiction() -> None:
    fused = fuse([constant(0.5, 0.1), constant(0.6, 0.1)])
    np.testing.assert_allclose(fused.inverse, 0.55, rtol=1e-6)
    np.testing.assert_allclose(fused.sigma, 0.1 / np.sqrt(2), rtol=1e-6)
    for maps in (
        [constant(0.5, 0.1), constant(2.0, 0.01)],
        [constant(2.0, 0.01), constant(0.5, 0.1)],
    ):
        clash = fuse(maps)
        np.testing.assert_allclose(clash.inverse, 2.0)
        np.testing.assert_allclose(clash.sigma, 0.01, rtol=1e-5)
    alone = fuse([unknown(2, 3), constant(0.5, 0.1)])
    np.testing.assert_allclose(alone.inverse, 0.5)
    assert np.isnan(fuse([unknown(2, 3), unknown(2, 3)]).inverse).all()


def test_a_map_is_fitted_by_scale_and_shift_despite_outliers() -> None:
    truth = (1.0 / render(np.eye(4)).depth).astype(np.float32)
    target = DepthMap(truth, 0.01 * truth)
    wrong = np.random.default_rng(0).random(SHAPE) < 0.2
    source = DepthMap(
        np.where(wrong, 3 * truth, 2.5 * truth).astype(np.float32), (0.3 * truth).astype(np.float32)
    )
    fitted = fit_to(source, target)
    assert np.median(np.abs(fitted.inverse[~wrong] / truth[~wrong] - 1)) < 0.01
    little = unknown(*SHAPE)
    little.inverse[:2, :50], little.sigma[:2, :50] = 0.2, 0.001
    assert fit_to(source, little) is source, "a hundred pixels are too few to judge by"


def test_parallax_and_overlap_of_geometry_alone() -> None:
    depth = render(np.eye(4)).depth
    assert parallax_and_overlap(depth, np.eye(4), CAMERA) == pytest.approx((0.0, 1.0), abs=0.02)
    parallax, overlap = parallax_and_overlap(depth, se3_exp([0.3, 0, 0, 0, 0, 0]), CAMERA)
    assert parallax > 5.0
    assert 0.5 < overlap < 1.0
    behind = se3_exp([0, 0, 0, 0, np.pi, 0])
    assert parallax_and_overlap(depth, behind, CAMERA) == (CAMERA.width, 0.0)
    assert parallax_and_overlap(np.full(SHAPE, np.nan, np.float32), np.eye(4), CAMERA) == (0.0, 0.0)
