"""Pose from points of rough depth: exact where they are, and no special case for the motions that
leave something open."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow3r_ros.geometry.camera_pose import (
    DepthPoints,
    depths_from,
    fit_camera_pose,
    judge_camera_pose,
    pose_without_depth,
    project_points,
)
from flow3r_ros.geometry.lie import invert, rotation_angle, se3_exp
from flow3r_ros.types import Camera, Float64

CAMERA = Camera(320, 240, 260.0, 260.0, 159.5, 119.5)
EXACT = settings(max_examples=25, deadline=None)
twists = st.lists(st.floats(-0.15, 0.15), min_size=6, max_size=6).map(np.array)


def points(count: int = 120, seed: int = 0, relative_sigma: float = 0.01) -> DepthPoints:
    """Points between 1 and 4 units away, all over the picture."""
    random = np.random.default_rng(seed)
    xy = random.uniform([-0.55, -0.4], [0.55, 0.4], (count, 2))
    inverse = 1.0 / random.uniform(1.0, 4.0, count)
    rays = np.concatenate([xy, np.ones((count, 1))], axis=1)
    return DepthPoints(rays, inverse, relative_sigma * inverse)


def error(T: Float64, truth: Float64) -> tuple[float, float]:
    """Distance, and angle in degrees."""
    off = invert(truth) @ T
    return float(np.linalg.norm(off[:3, 3])), float(np.degrees(rotation_angle(off[:3, :3])))


@given(twists, st.integers(0, 5))
@EXACT
def test_exact_points_give_the_exact_pose(twist: Float64, seed: int) -> None:
    known, truth = points(seed=seed), se3_exp(twist)
    fit = fit_camera_pose(known, project_points(known, truth, CAMERA), CAMERA, np.eye(4), 0.5, 15)
    distance, angle = error(fit.T, truth)
    assert distance < 1e-5
    assert angle < 1e-4
    assert fit.inliers == 1.0
    assert fit.cost < 1e-6
    assert np.linalg.eigvalsh(fit.information).min() > 0


@given(st.integers(0, 20))
@EXACT
def test_unknown_depth_still_gives_rotation_and_direction(seed: int) -> None:
    known = points(200, seed)
    truth = se3_exp(np.array([0.15, -0.05, 0.08, 0.03, -0.05, 0.02]))
    observed = project_points(known, truth, CAMERA)
    rough = DepthPoints(known.rays, np.full(200, 0.5), np.full(200, 1.0))
    starts = [np.eye(4), pose_without_depth(rough, observed, CAMERA)]
    fits = [fit_camera_pose(rough, observed, CAMERA, s, 0.3, 30) for s in starts if s is not None]
    fit = max(fits, key=lambda each: each.inliers)
    _, angle = error(fit.T, truth)
    way, wanted = fit.T[:3, 3], truth[:3, 3]
    cosine = float(way @ wanted) / float(np.linalg.norm(way) * np.linalg.norm(wanted))
    assert angle < 0.3
    assert cosine > np.cos(np.radians(5.0))


@pytest.mark.parametrize(
    "twist",
    [np.zeros(6), np.array([0, 0, 0, 0.1, -0.12, 0.2]), np.array([0, 0, 0.3, 0, 0, 0])],
    ids=["standing still", "pure rotation", "forward"],
)
def test_motions_that_degenerate_elsewhere_need_no_case(twist: Float64) -> None:
    random = np.random.default_rng(3)
    known, truth = points(200), se3_exp(twist)
    observed = project_points(known, truth, CAMERA) + random.normal(0, 0.3, (200, 2))
    for relative_sigma in (0.02, 0.5):
        rough = DepthPoints(
            known.rays,
            known.inverse * np.exp(relative_sigma * random.normal(size=200)),
            relative_sigma * known.inverse,
        )
        fit = fit_camera_pose(rough, observed, CAMERA, np.eye(4), 0.3, 15)
        distance, angle = error(fit.T, truth)
        assert angle < 0.2
        assert distance < (0.01 if relative_sigma < 0.1 else 0.1)


def test_points_at_infinity_give_rotation_and_leave_translation_open() -> None:
    far = points(200)
    far = DepthPoints(far.rays, np.full(200, 1e-9), np.full(200, 1e-9))
    truth = se3_exp(np.array([0, 0, 0, 0.1, -0.12, 0.2]))
    fit = fit_camera_pose(far, project_points(far, truth, CAMERA), CAMERA, np.eye(4), 0.5, 15)
    assert error(fit.T, truth)[1] < 1e-3
    loose = np.diag(fit.information)
    assert loose[:3].max() < 1e-6 * loose[3:].min()


@given(st.integers(0, 10))
@EXACT
def test_two_in_five_wrong_points_are_outvoted(seed: int) -> None:
    random = np.random.default_rng(seed)
    known = points(200, seed)
    truth = se3_exp(np.array([0.03, -0.02, 0.03, 0.01, -0.015, 0.01]))
    observed = project_points(known, truth, CAMERA)
    wrong = np.arange(200) % 5 < 2
    observed[wrong] += random.uniform(15, 60, (80, 2)) * random.choice([-1, 1], (80, 2))
    starts = [np.eye(4), pose_without_depth(known, observed, CAMERA)]
    fits = [
        fit_camera_pose(known, observed, CAMERA, start, 0.5, 20)
        for start in starts
        if start is not None
    ]
    fit = max(fits, key=lambda each: each.inliers)
    distance, angle = error(fit.T, truth)
    assert distance < 5e-3
    assert angle < 0.1
    assert fit.inliers == pytest.approx(0.6, abs=0.05)
    assert np.median(fit.distance[wrong]) > 10 * np.median(fit.distance[~wrong])


def test_points_behind_the_camera_have_no_say() -> None:
    known = points()
    truth = se3_exp(np.array([0.02, 0.0, 0.01, 0.0, 0.01, 0.0]))
    observed = project_points(known, truth, CAMERA)
    turned = np.diag([1.0, 1.0, -1.0])
    mixed = DepthPoints(
        np.concatenate([known.rays, known.rays[:20] @ turned]),
        np.concatenate([known.inverse, known.inverse[:20]]),
        np.concatenate([known.sigma, known.sigma[:20]]),
    )
    assert np.isnan(project_points(mixed, truth, CAMERA)[120:]).all()
    fit = fit_camera_pose(
        mixed, np.concatenate([observed, observed[:20]]), CAMERA, np.eye(4), 0.5, 15
    )
    assert error(fit.T, truth)[0] < 1e-5
    assert fit.distance[120:].min() > 50


def test_a_pose_is_judged_by_points_it_was_not_fitted_to() -> None:
    known, truth = points(), se3_exp(np.array([0.05, 0.0, 0.02, 0.0, 0.02, 0.0]))
    observed = project_points(known, truth, CAMERA)
    assert judge_camera_pose(known, observed, CAMERA, truth, 0.5).max() < 1e-6
    off = truth @ se3_exp(np.array([0, 0, 0, 0, 0.05, 0]))
    assert np.median(judge_camera_pose(known, observed, CAMERA, off, 0.5)) > 10


def test_the_essential_matrix_needs_points_and_parallax() -> None:
    known, truth = points(), se3_exp(np.array([0.3, 0.05, 0.1, 0.05, -0.1, 0.03]))
    observed = project_points(known, truth, CAMERA)
    found = pose_without_depth(known, observed, CAMERA)
    assert found is not None
    distance, angle = error(found, truth)
    assert distance < 0.03
    assert angle < 0.3
    few = np.arange(120) < 8
    assert pose_without_depth(known.only(few), observed[few], CAMERA) is None
    still = project_points(known, np.eye(4), CAMERA)
    assert pose_without_depth(known, still, CAMERA) is None


@pytest.mark.parametrize("tilt", [-0.6, 1.0])
def test_depths_that_are_wrong_together_do_not_bend_the_pose(tilt: float) -> None:
    """A network that sees a wall slanted: the derivative must turn with the epipolar lines."""
    known = points(200, 3)
    truth = se3_exp(np.array([0.1, 0.02, 0.06, 0.0, 0.03, 0.0]))
    wrong = known.inverse * np.exp(tilt * known.rays[:, 0])
    rough = DepthPoints(known.rays, wrong, 0.7 * np.maximum(wrong, np.median(wrong)))
    fit = fit_camera_pose(rough, project_points(known, truth, CAMERA), CAMERA, np.eye(4), 0.5, 15)
    _, angle = error(fit.T, truth)
    assert angle < 0.05


def test_an_observation_tells_a_depth_as_far_as_its_parallax_goes() -> None:
    known, truth = points(100, 4), se3_exp(np.array([0.12, 0.02, 0.0, 0.0, 0.02, 0.0]))
    guessed = DepthPoints(known.rays, 1.4 * known.inverse, 0.7 * known.inverse)
    observed = project_points(known, truth, CAMERA)
    seen, parallax = depths_from(guessed, observed, CAMERA, truth, 0.3)
    off = np.abs(np.log(seen.inverse / known.inverse))
    assert np.median(off) < 0.02
    assert np.all(off < 4.0 * seen.sigma / seen.inverse)
    assert np.all(seen.sigma < guessed.sigma)
    still, none = depths_from(
        guessed, project_points(known, np.eye(4), CAMERA), CAMERA, np.eye(4), 0.3
    )
    assert np.array_equal(still.inverse, guessed.inverse)
    assert none.max() == 0.0
    assert parallax.min() > 0.0
