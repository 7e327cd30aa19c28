import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from flow3r_ros.geometry import frames, lie

twists = st.lists(st.floats(-1, 1), min_size=6, max_size=6).map(np.array)


def test_moving_along_the_optical_axis_moves_forward_in_odom():
    T = lie.rigid(np.eye(3), [0.1, 0.2, 3.0])
    np.testing.assert_allclose(frames.odom_from_optical(T)[:3, 3], [3.0, -0.1, -0.2])
    assert np.linalg.det(frames.R_BODY_OPTICAL) > 0


def test_turning_the_camera_right_is_negative_yaw_of_the_base():
    E = lie.rigid(frames.R_BODY_OPTICAL, [0.3, 0.0, 0.5])
    T = lie.rigid(lie.so3_exp([0, 0.1, 0]), np.zeros(3))
    T_odom_base = frames.odom_from_optical(T, E)
    np.testing.assert_allclose(lie.so3_log(T_odom_base[:3, :3]), [0, 0, -0.1], atol=1e-12)


@given(twists, twists)
def test_steps_are_those_of_the_body_and_the_first_pose_is_identity(a, b):
    """The step between two poses, seen from the child, is the camera's, carried by its mounting."""
    T, E = lie.se3_exp(a), lie.se3_exp(b)
    for extrinsics, mounting in ((None, np.eye(4)), (E, E)):
        first, last = (frames.odom_from_optical(pose, extrinsics) for pose in (np.eye(4), T))
        step = lie.invert(mounting) @ lie.invert(first) @ last @ mounting
        np.testing.assert_allclose(step, T, atol=1e-10)
    np.testing.assert_allclose(frames.odom_from_optical(np.eye(4), E), np.eye(4), atol=1e-12)


@given(twists, twists)
def test_covariance_equals_a_sampled_perturbation(a, b):
    """The linear map behind the covariance is the derivative of the pose map."""
    T, step = lie.se3_exp(a), 1e-6
    for extrinsics in (None, lie.se3_exp(b)):
        base = frames.odom_from_optical(T, extrinsics)
        columns = []
        for axis in range(6):
            moved = T.copy()
            delta = np.zeros(6)
            delta[axis] = step
            moved[:3, 3] += delta[:3]
            moved[:3, :3] = lie.so3_exp(delta[3:]) @ moved[:3, :3]
            out = frames.odom_from_optical(moved, extrinsics)
            columns.append(
                np.concatenate(
                    [out[:3, 3] - base[:3, 3], lie.so3_log(out[:3, :3] @ base[:3, :3].T)]
                )
                / step
            )
        J = np.stack(columns, axis=1)
        covariance = np.diag([1.0, 2, 3, 0.1, 0.2, 0.3])
        np.testing.assert_allclose(
            frames.odom_covariance(covariance, T, extrinsics), J @ covariance @ J.T, atol=1e-4
        )
