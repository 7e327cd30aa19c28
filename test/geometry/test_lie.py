import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from flow3r_ros.geometry import lie

numbers = st.floats(-3, 3, allow_nan=False)
vectors = st.tuples(numbers, numbers, numbers).map(np.array)


def random_rotation(seed):
    return Rotation.random(random_state=seed).as_matrix()


@given(vectors)
def test_so3_exp_equals_scipy(phi):
    np.testing.assert_allclose(lie.so3_exp(phi), Rotation.from_rotvec(phi).as_matrix(), atol=1e-12)


@pytest.mark.parametrize(
    "angle",
    [
        0.0,
        1e-12,
        1e-8,
        9.9e-5,
        1.01e-4,
        1e-3,
        1.0,
        3.0,
        np.pi - 1e-3,
        np.pi - 1e-6,
        np.pi - 1e-9,
        np.pi,
    ],
)
@pytest.mark.parametrize("seed", range(4))
def test_so3_log_inverts_exp_near_zero_and_pi(angle, seed):
    axis = np.random.default_rng(seed).normal(size=3)
    phi = angle * axis / np.linalg.norm(axis)
    back = lie.so3_log(lie.so3_exp(phi))
    error = min(np.abs(back - phi).max(), np.abs(back + phi).max() if angle == np.pi else np.inf)
    assert error < 1e-9 + 1e-9 * angle


@given(vectors, vectors)
def test_se3_log_inverts_exp(rho, phi):
    phi = phi * min(1.0, 3.1 / max(np.linalg.norm(phi), 1e-9))
    xi = np.concatenate([rho, phi])
    np.testing.assert_allclose(lie.se3_log(lie.se3_exp(xi)), xi, atol=1e-7)


@given(vectors, vectors, st.floats(0.1, 10))
def test_invert_and_sim3_parts(t, phi, scale):
    S = lie.sim3(scale, lie.so3_exp(phi), t)
    np.testing.assert_allclose(lie.invert(S) @ S, np.eye(4), atol=1e-10)
    s, R, translation = lie.sim3_parts(S)
    assert s == pytest.approx(scale)
    np.testing.assert_allclose(R, lie.so3_exp(phi), atol=1e-12)
    np.testing.assert_allclose(translation, t)
    batch = np.stack([S, np.eye(4)])
    np.testing.assert_allclose(lie.invert(batch)[0], lie.invert(S))


@settings(max_examples=50)
@given(st.integers(0, 10_000), st.floats(0.01, 100), st.integers(4, 40))
def test_umeyama_is_exact(seed, scale, count):
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(count, 3))
    truth = lie.sim3(scale, random_rotation(seed), rng.normal(size=3))
    found = lie.umeyama(points, lie.apply(truth, points))
    np.testing.assert_allclose(found, truth, atol=1e-7 * scale)
    rigid = lie.sim3(1.0, random_rotation(seed), rng.normal(size=3))
    np.testing.assert_allclose(
        lie.umeyama(points, lie.apply(rigid, points), with_scale=False), rigid, atol=1e-9
    )


@pytest.mark.parametrize(
    "points",
    [np.zeros((5, 3)), np.outer(np.arange(5.0), [1, 2, 3]), np.array([[1.0, 2, 3]]), np.eye(3)[:2]],
)
def test_umeyama_of_degenerate_points_is_still_a_similarity(points):
    found = lie.umeyama(points, points + 1.0)
    scale, R, _ = lie.sim3_parts(found)
    assert scale > 0
    np.testing.assert_allclose(R @ R.T, np.eye(3), atol=1e-9)
    assert np.linalg.det(R) == pytest.approx(1.0)
    np.testing.assert_allclose(lie.apply(found, points), points + 1.0, atol=1e-9)


def test_umeyama_never_reflects():
    points = np.random.default_rng(0).normal(size=(20, 3))
    _, R, _ = lie.sim3_parts(lie.umeyama(points, points * [1, 1, -1]))
    assert np.linalg.det(R) == pytest.approx(1.0)


@pytest.mark.parametrize("points", [np.full((4, 3), np.nan), np.empty((0, 3))])
def test_umeyama_refuses_nonsense(points):
    with pytest.raises(ValueError, match="umeyama"):
        lie.umeyama(points, points)


@given(vectors)
def test_quaternion_round_trip_equals_scipy(phi):
    R = lie.so3_exp(phi)
    q = lie.quaternion_from_matrix(R)
    assert q[3] >= 0
    np.testing.assert_allclose(lie.matrix_from_quaternion(q), R, atol=1e-12)
    np.testing.assert_allclose(Rotation.from_quat(q).as_matrix(), R, atol=1e-12)


def test_interpolate_hits_both_ends_and_the_middle():
    T0, T1 = (
        lie.rigid(lie.so3_exp([0, 0, 0.2]), [0, 0, 0]),
        lie.rigid(lie.so3_exp([0, 0, 0.6]), [2, 0, 0]),
    )
    np.testing.assert_allclose(lie.interpolate(T0, T1, 0.0), T0, atol=1e-12)
    np.testing.assert_allclose(lie.interpolate(T0, T1, 1.0), T1, atol=1e-12)
    np.testing.assert_allclose(
        lie.interpolate(T0, T1, 0.5), lie.rigid(lie.so3_exp([0, 0, 0.4]), [1, 0, 0]), atol=1e-12
    )


def test_average_rotations_follows_weights():
    stack = np.stack([lie.so3_exp([0, 0, a]) for a in (0.0, 0.2)])
    np.testing.assert_allclose(lie.average_rotations(stack), lie.so3_exp([0, 0, 0.1]), atol=1e-12)
    assert lie.rotation_angle(lie.average_rotations(stack, [1.0, 3.0])) > 0.14
