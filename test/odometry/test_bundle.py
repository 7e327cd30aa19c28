"""Bundle adjustment of synthetic observations: truth comes back from noise, what is fixed stays,
and more observations make surer."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flow3r_ros.geometry.camera_pose import DepthPoints, project_points
from flow3r_ros.geometry.lie import invert, rotation_angle, se3_exp
from flow3r_ros.odometry.bundle import Problem, adjust
from flow3r_ros.odometry.mapping import LENS_SIGMA
from flow3r_ros.odometry.views import bent, rays_of
from flow3r_ros.types import Float64
from test.odometry.plane import CAMERA


def truth(points: int = 60, views: int = 4, seed: int = 0) -> Problem:
    """Points of the first camera seen by all others, exactly; the first two cameras are fixed."""
    random = np.random.default_rng(seed)
    poses = np.stack(
        [
            se3_exp(np.array([0.12 * k, 0.03 * k * k, 0.02 * k, 0.01 * k, -0.02 * k, 0.005 * k]))
            for k in range(views)
        ]
    )
    rays = np.concatenate(
        [random.uniform([-0.5, -0.35], [0.5, 0.35], (points, 2)), np.ones((points, 1))], axis=1
    )
    inverse = 1.0 / random.uniform(1.0, 4.0, points)
    known = DepthPoints(rays, inverse, inverse)
    observed = np.concatenate([project_points(known, pose, CAMERA) for pose in poses[1:]])
    point = np.tile(np.arange(points), views - 1)
    target = np.repeat(np.arange(1, views), points)
    return Problem(
        poses=poses, free=np.arange(views) >= 2, host=np.zeros(points, np.intp), rays=rays,
        inverse=inverse, prior=inverse, prior_sigma=inverse, point=point, target=target,
        observed=observed, weight=np.ones(len(point)), lens=CAMERA, sigma_px=0.5,
    )  # fmt: skip


def disturbed(problem: Problem, size: float, seed: int = 1) -> Problem:
    random = np.random.default_rng(seed)
    poses = problem.poses.copy()
    for index in np.flatnonzero(problem.free):
        poses[index] = poses[index] @ se3_exp(size * random.normal(size=6))
    wrong = problem.inverse * np.exp(5 * size * random.normal(size=len(problem.inverse)))
    return replace(problem, poses=poses, inverse=wrong, prior=wrong, prior_sigma=0.5 * wrong)


def worst(poses: Float64, exact: Float64) -> tuple[float, float]:
    errors = [invert(a) @ b for a, b in zip(exact, poses, strict=True)]
    return max(float(np.linalg.norm(e[:3, 3])) for e in errors), max(
        float(rotation_angle(e[:3, :3])) for e in errors
    )


def test_the_truth_comes_back() -> None:
    problem = truth()
    start = disturbed(problem, 0.02)
    result = adjust(start, iterations=20)
    assert worst(start.poses, problem.poses)[0] > 0.015
    assert worst(result.poses, problem.poses)[0] < 2e-3
    assert worst(result.poses, problem.poses)[1] < 1e-3
    assert np.median(np.abs(result.inverse / problem.inverse - 1.0)) < 5e-3
    assert np.array_equal(result.poses[:2], problem.poses[:2])


def test_noise_leaves_what_the_covariance_says() -> None:
    random = np.random.default_rng(2)
    problem, squared = truth(120), []
    for _ in range(12):
        noisy = problem.observed + random.normal(0, 0.5, problem.observed.shape)
        result = adjust(replace(problem, observed=noisy), iterations=10)
        error = invert(problem.poses[3]) @ result.poses[3]
        squared.append(float(np.sum(error[:3, 3] ** 2)))
    expected = float(np.trace(result.covariance[6:9, 6:9]))
    assert 0.2 < np.mean(squared) / expected < 5.0


def test_a_fifth_of_outliers_is_outvoted() -> None:
    random = np.random.default_rng(3)
    problem = truth(120)
    observed = problem.observed.copy()
    wrong = random.random(len(observed)) < 0.2
    observed[wrong] += random.uniform(10, 40, (int(wrong.sum()), 2))
    result = adjust(replace(disturbed(problem, 0.005), observed=observed), iterations=30)
    assert worst(result.poses, problem.poses)[0] < 0.01
    assert np.median(result.distance[wrong]) > 10
    assert np.median(result.distance[~wrong]) < 1


@given(st.lists(st.floats(-1.0, 1.0), min_size=6, max_size=6).map(np.array))
@settings(max_examples=10, deadline=None)
def test_where_the_world_lies_does_not_matter(twist: Float64) -> None:
    moved, start = se3_exp(twist), disturbed(truth(), 0.01)
    here = adjust(start, iterations=10)
    there = adjust(replace(start, poses=moved @ start.poses), iterations=10)
    np.testing.assert_allclose(there.poses, moved @ here.poses, atol=1e-6)
    np.testing.assert_allclose(there.inverse, here.inverse, rtol=1e-6)
    np.testing.assert_allclose(there.covariance, here.covariance, rtol=1e-3, atol=1e-12)


@given(st.floats(0.2, 5.0))
@settings(max_examples=10, deadline=None)
def test_nor_does_its_unit(factor: float) -> None:
    start = disturbed(truth(), 0.01)
    poses = start.poses.copy()
    poses[:, :3, 3] *= factor
    larger = replace(
        start, poses=poses, inverse=start.inverse / factor, prior=start.prior / factor,
        prior_sigma=start.prior_sigma / factor,
    )  # fmt: skip
    here, there = adjust(start, iterations=15), adjust(larger, iterations=15)
    np.testing.assert_allclose(there.poses[:, :3, 3], factor * here.poses[:, :3, 3], atol=2e-3)
    np.testing.assert_allclose(there.inverse * factor, here.inverse, rtol=2e-2)


def test_more_observations_make_surer() -> None:
    few, many = adjust(truth(30)), adjust(truth(240))
    assert np.trace(many.covariance) < 0.4 * np.trace(few.covariance)
    short, long = truth(60, views=3), truth(60, views=5)
    assert np.median(adjust(long).sigma) < np.median(adjust(short).sigma)
    assert np.linalg.eigvalsh(many.covariance).min() > 0


def test_a_prior_alone_keeps_a_point_where_nothing_sees_it_move() -> None:
    problem = truth()
    still = replace(problem, poses=np.tile(np.eye(4), (4, 1, 1)), free=np.arange(4) >= 3)
    pixels = problem.rays[:, :2] * [CAMERA.fx, CAMERA.fy] + [CAMERA.cx, CAMERA.cy]
    result = adjust(replace(still, observed=np.tile(pixels, (3, 1))))
    np.testing.assert_allclose(result.inverse, problem.inverse, rtol=1e-3)
    np.testing.assert_allclose(result.sigma, problem.prior_sigma, rtol=1e-3)


def turning(focal: float, seed: int = 0) -> Problem:
    """A camera that moves and turns by 40 degrees, taken for one whose focal length is `focal` of
    its own."""
    problem = truth(points=150, views=7, seed=seed)
    poses = np.stack([se3_exp(np.array([0.2 * k, 0, 0.05 * k, 0, -0.12 * k, 0])) for k in range(7)])
    known = DepthPoints(problem.rays, problem.inverse, problem.inverse)
    observed = np.concatenate([project_points(known, pose, CAMERA) for pose in poses[1:]])
    wrong = replace(CAMERA, fx=focal * CAMERA.fx, fy=focal * CAMERA.fy)
    rays = problem.rays / np.array([focal, focal, 1.0])
    free = np.arange(7) >= 1
    return replace(problem, poses=poses, observed=observed, lens=wrong, rays=rays, free=free)


@given(st.sampled_from([0.88, 0.97, 1.0, 1.03, 1.12]))
@settings(max_examples=5, deadline=None)
def test_a_turning_camera_shows_how_long_its_lens_is(focal: float) -> None:
    start = turning(focal)
    result = adjust(replace(start, lens_sigma=LENS_SIGMA), iterations=40)
    assert abs(np.log(result.focal * focal)) < 0.008
    assert 0 < result.focal_sigma < 0.005
    assert abs(result.bend) < 0.004


@given(st.sampled_from([-0.12, -0.02, 0.02, 0.12]))
@settings(max_examples=4, deadline=None)
def test_what_a_calibration_left_of_the_lens_is_found(bend: float) -> None:
    start = turning(1.0)
    observed = bent(start.observed, CAMERA, 1.0, bend)
    hosted = project_points(
        DepthPoints(start.rays, start.inverse, start.inverse), np.eye(4), CAMERA
    )
    rays = rays_of(CAMERA, bent(hosted, CAMERA, 1.0, bend).astype(np.float32))
    start = replace(start, observed=observed, rays=rays)
    result = adjust(replace(start, lens_sigma=LENS_SIGMA), iterations=40)
    assert abs(result.bend - bend) < 0.06 * abs(bend) + 0.002
    assert abs(np.log(result.focal)) < 0.006


def test_a_fixed_lens_stays_and_one_that_nothing_shows_keeps_the_given_one() -> None:
    assert adjust(turning(1.05), iterations=10).focal == 1.0
    straight = truth(views=3)
    moved = replace(straight, free=np.array([False, True, True]), lens_sigma=LENS_SIGMA)
    assert abs(adjust(moved, iterations=10).focal - 1.0) < 1e-3
