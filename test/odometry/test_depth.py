"""Depth maps: carried exactly on a plane, unknown where nothing is known, fused by their sigmas."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.depth_map import DepthMap, unknown
from flow3r_ros.odometry.depth import bent_onto, carry, fit_to, from_network, fuse, of_points
from test.odometry.plane import depth_at, relative, seen_at


def test_a_plane_is_carried_exactly() -> None:
    here, there = seen_at(0), seen_at(8)
    carried, came_from = carry(depth_at(0, here), relative(0, 8), here.camera)
    known = np.isfinite(carried.inverse)
    assert known.mean() > 0.75
    exact = depth_at(8, there).inverse
    np.testing.assert_allclose(carried.inverse[known], exact[known], rtol=2e-3)
    assert np.isinf(carried.sigma[~known]).all()
    assert came_from.shape == (*exact.shape, 2)


def test_standing_still_carries_everything_as_it_is() -> None:
    here = seen_at(0)
    carried, came_from = carry(depth_at(0, here), np.eye(4), here.camera)
    known = np.isfinite(carried.inverse)
    assert known[1:-1, 1:-1].all()
    np.testing.assert_allclose(carried.inverse[known], depth_at(0, here).inverse[known], rtol=1e-4)
    assert np.abs(came_from[50, 70] - [70, 50]).max() < 1e-3


def test_a_camera_that_is_turned_over_is_carried_to_as_well() -> None:
    here = seen_at(0)
    over = np.diag([-1.0, -1.0, 1.0, 1.0])
    carried, came_from = carry(depth_at(0, here), over, here.camera)
    known = np.isfinite(carried.inverse)
    assert known.mean() > 0.9
    turned = depth_at(0, here).inverse[::-1, ::-1]
    np.testing.assert_allclose(carried.inverse[known], turned[known], rtol=0.02)
    rows, columns = here.gray.shape
    assert np.abs(came_from[50, 70] - [columns - 70, rows - 50]).max() < 2.0


def test_what_is_hidden_or_beyond_the_picture_is_unknown() -> None:
    here = seen_at(0)
    height, width = here.gray.shape
    inverse = np.full((height, width), 0.25, np.float32)
    inverse[40:80, 60:110] = 1.0
    map_ = DepthMap(inverse, 0.01 * inverse)
    aside = np.eye(4)
    aside[0, 3] = 0.15
    carried, _ = carry(map_, aside, here.camera)
    front = round(here.camera.fx * 0.15)
    back = round(here.camera.fx * 0.15 * 0.25)
    assert np.isnan(carried.inverse[60, width - back // 2 :]).all()
    uncovered = slice(110 - front + 4, 110 - back - 4)
    assert np.isnan(carried.inverse[60, uncovered]).mean() > 0.8
    assert np.isfinite(carried.inverse[60, 65 - front + 6 : 100 - front]).all()


def test_unknown_pixels_stay_unknown() -> None:
    nothing = unknown(20, 30)
    assert np.isnan(nothing.depth()).all()
    assert (nothing.confidence() == 0).all()
    here = seen_at(0)
    carried, _ = carry(unknown(*here.gray.shape), relative(0, 3), here.camera)
    assert np.isnan(carried.inverse).all()
    keep = np.zeros(here.gray.shape, np.bool_)
    keep[:, :10] = True
    only = depth_at(0, here).where(keep)
    assert np.isfinite(only.inverse).sum() == keep.sum()


def test_values_are_read_at_pixels_of_a_larger_picture() -> None:
    here = seen_at(0)
    map_ = depth_at(0, here)
    inverse, sigma = map_.at(np.array([[0, 0], [319, 239], [1000, 5]], np.float32), here.ratio)
    assert inverse[0] == np.float64(map_.inverse[0, 0])
    assert inverse[1] == np.float64(map_.inverse[-1, -1])
    assert np.isfinite(sigma).all()


def test_fusion_weighs_by_information_and_the_surer_wins_a_quarrel() -> None:
    def constant(value: float, sigma: float) -> DepthMap:
        return DepthMap(np.full((4, 4), value, np.float32), np.full((4, 4), sigma, np.float32))

    mean = fuse([constant(1.0, 0.1), constant(1.1, 0.1)])
    np.testing.assert_allclose(mean.inverse, 1.05, rtol=1e-5)
    np.testing.assert_allclose(mean.sigma, 0.1, rtol=1e-5)
    surer = fuse([constant(1.0, 0.1), constant(1.1, 0.02)])
    np.testing.assert_allclose(surer.sigma, 0.02, rtol=1e-5)
    quarrel = fuse([constant(1.0, 0.01), constant(2.0, 0.1)])
    np.testing.assert_allclose(quarrel.inverse, 1.0, rtol=1e-5)
    alone = fuse([unknown(4, 4), constant(1.0, 0.1)])
    np.testing.assert_allclose(alone.inverse, 1.0)
    assert np.isnan(fuse([unknown(4, 4), unknown(4, 4)]).inverse).all()


def test_the_network_is_as_sure_as_it_says() -> None:
    depth, confidence = np.full((6, 8), 2.0, np.float32), np.full((6, 8), 0.9, np.float32)
    depth[0, 0], confidence[:, 4:] = np.nan, 0.2
    map_ = from_network(depth, confidence, 3.0, 8, 6)
    assert np.isnan(map_.inverse[0, 0])
    np.testing.assert_allclose(map_.inverse[1:], 1 / 6, rtol=1e-5)
    np.testing.assert_allclose(map_.confidence()[3, [1, 6]], [0.9, 0.2], rtol=1e-4)


def test_a_wrong_scale_is_brought_onto_what_is_known() -> None:
    target = depth_at(0, seen_at(0))
    source = DepthMap(target.inverse * np.float32(0.4), target.sigma)
    fitted = fit_to(source, target)
    np.testing.assert_allclose(fitted.inverse, target.inverse, rtol=0.02)
    relative = (target.sigma / target.inverse)[0, 0]
    assert (fitted.sigma > 0.99 * relative * fitted.inverse).all(), "agreement is no second opinion"
    little = target.where(np.zeros(target.inverse.shape, np.bool_))
    assert fit_to(source, little) is source


def test_points_know_the_pixels_around_them_and_the_surer_wins() -> None:
    pixels = np.array([[5.4, 7.9], [6.2, 7.1], [0.0, 0.0]], np.float32)
    points = DepthPoints(np.zeros((3, 3)), np.array([0.5, 0.25, 1.0]), np.array([0.1, 0.01, 0.02]))
    map_ = of_points(pixels, points, (20, 30))
    assert map_.inverse[7, 6] == map_.inverse[7, 5] == np.float32(0.25)
    assert map_.inverse[7, 4] == np.float32(0.5)
    assert map_.inverse[1, 1] == 1.0
    assert np.isfinite(map_.inverse).sum() == 4 + 12
    assert np.isinf(map_.sigma[~np.isfinite(map_.inverse)]).all()


def test_a_shape_is_bent_onto_what_was_measured_and_keeps_its_relief() -> None:
    height, width = 120, 160
    x = np.linspace(-1, 1, width, dtype=np.float32)[None, :].repeat(height, axis=0)
    relief = 1 + 0.1 * np.sin(40 * x)
    truth = (0.5 + 0.2 * x) * relief
    shape = DepthMap(0.4 * relief, 0.3 * relief)  # level and tilt are wrong
    known = np.zeros((height, width), bool)
    known[::6, ::6] = True
    measured = DepthMap(truth, 0.02 * truth).where(known)
    gray = np.full((height, width), 128, np.uint8)
    bent = bent_onto(shape, measured, gray, np.zeros_like(known))
    error = np.abs(bent.inverse / truth - 1)
    assert np.median(error) < 0.02
    assert error.max() < 0.15
    assert (bent.sigma < shape.sigma).all()


def test_a_shape_stays_where_nothing_was_measured() -> None:
    shape = DepthMap(np.full((90, 400), 0.5, np.float32), np.full((90, 400), 0.1, np.float32))
    known = np.zeros((90, 400), bool)
    known[:, :40] = True
    measured = DepthMap(np.full((90, 400), 1.0, np.float32), shape.sigma / 20).where(known)
    bent = bent_onto(shape, measured, np.full((90, 400), 9, np.uint8), np.zeros_like(known))
    np.testing.assert_allclose(bent.inverse[:, :30], 1.0, rtol=1e-3)
    np.testing.assert_array_equal(bent.inverse[:, 300:], shape.inverse[:, 300:])
    np.testing.assert_array_equal(bent.sigma[:, 300:], shape.sigma[:, 300:])
