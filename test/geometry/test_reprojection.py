import numpy as np
import pytest

from flow3r_ros.geometry import lie, reprojection
from flow3r_ros.geometry.reprojection import Target, make_target, refine_pose
from test.geometry.views import CAMERA, exact_correspondence

KEYFRAMES = [
    lie.se3_exp([0.0, 0, 0, 0, 0, 0]),
    lie.se3_exp([0.2, 0.0, 0.1, 0, 0.03, 0]),
    lie.se3_exp([-0.2, 0.05, 0.1, 0.02, -0.03, 0]),
]
POSE = lie.se3_exp([0.1, -0.05, 0.3, 0.02, 0.05, -0.03])


def make_targets(noise=0.0, outliers=0.0, depth_error=0.0, known=True):
    targets = []
    for seed, T in enumerate(KEYFRAMES):
        flow, view, _ = exact_correspondence(lie.invert(T) @ POSE, T, noise, outliers, seed)
        depth = view.depth * np.exp(
            np.random.default_rng(seed).normal(0, depth_error, view.depth.shape)
        ).astype(np.float32)
        depth = depth if known else np.full_like(depth, np.nan)
        targets.append(
            make_target(
                flow, CAMERA, T, depth, np.maximum(depth_error, 0.01).astype(np.float32) / depth
            )
        )
    return targets


def error(found):
    delta = lie.se3_log(lie.invert(POSE) @ found)
    return np.linalg.norm(delta[:3]), np.degrees(np.linalg.norm(delta[3:]))


def test_exact_targets_give_the_exact_pose_from_far_away():
    start = POSE @ lie.se3_exp([0.2, 0.1, -0.1, 0.05, -0.1, 0.08])
    refined = refine_pose(start, make_targets(), CAMERA, iterations=20)
    shift, turn = error(refined.T_world_cam)
    assert shift < 1e-3
    assert turn < 0.02
    assert refined.inliers > 0.95


def test_noise_outliers_and_wrong_depth_are_tolerated_and_measured():
    refined = refine_pose(
        POSE @ lie.se3_exp([0.05, 0, 0, 0, 0.02, 0]), make_targets(0.4, 0.3, 0.1), CAMERA
    )
    shift, turn = error(refined.T_world_cam)
    assert shift < 0.02
    assert turn < 0.15
    sigma = np.sqrt(np.diag(refined.covariance))
    assert shift < 4 * np.linalg.norm(sigma[:3]) < 0.2
    assert np.radians(turn) < 4 * np.linalg.norm(sigma[3:])
    assert 0.5 < refined.inliers < 0.9


def test_unknown_depth_still_constrains_the_pose_through_several_keyframes():
    refined = refine_pose(
        POSE @ lie.se3_exp([0.03, 0.02, 0, 0, 0.01, 0]),
        make_targets(0.2, known=False),
        CAMERA,
        iterations=30,
    )
    shift, turn = error(refined.T_world_cam)
    assert shift < 0.02
    assert turn < 0.2


def test_the_jacobian_is_the_derivative_of_the_residual():
    """The gradient of the linearisation equals finite differences of the cost with frozen whitening
    (sigma 0, no robust loss)."""
    flow, view, _ = exact_correspondence(POSE, np.eye(4), 0.5)
    target = make_target(flow, CAMERA, np.eye(4), view.depth, np.zeros_like(view.depth))
    start = POSE @ lie.se3_exp([0.01, 0.02, -0.01, 0.004, -0.003, 0.002])
    gradient = reprojection._linearise(start, [target], 280.0, 1e6)[1]
    for axis in range(6):
        step = np.zeros(6)
        step[axis] = 1e-5
        plus, minus = (
            reprojection._linearise(start @ lie.se3_exp(sign * step), [target], 280.0, 1e6)[2]
            for sign in (1, -1)
        )
        slope = (plus - minus) / 2e-5 * target.weight.sum() / 2.0
        assert gradient[axis] == pytest.approx(slope, rel=1e-3, abs=1.0)


def test_nothing_to_refine_against_is_an_error():
    empty = Target(
        np.eye(4), np.zeros((0, 3)), np.zeros(0), np.zeros(0), np.zeros((0, 2)), np.zeros(0)
    )
    with pytest.raises(ValueError, match="three points"):
        refine_pose(np.eye(4), [empty], CAMERA)


def test_points_behind_the_camera_do_not_break_it():
    targets = make_targets(0.3)
    away = lie.rigid(lie.so3_exp([0, np.pi, 0]), [0, 0, -1])
    refined = refine_pose(away, targets, CAMERA)
    assert np.isfinite(refined.T_world_cam).all()
    assert np.isfinite(refined.covariance).all()
    assert refined.inliers < 0.5
