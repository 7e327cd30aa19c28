import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flow3r_ros.geometry import epipolar, lie
from test.geometry.views import CAMERA, exact_correspondence

T_A_B = lie.se3_exp([0.2, -0.1, 0.2, 0.05, -0.05, 0.02])


@pytest.fixture(scope="module")
def matches():
    return epipolar.select_matches(exact_correspondence(T_A_B)[0], CAMERA)


def test_the_true_motion_has_no_error_and_others_have(matches):
    T = lie.invert(T_A_B)
    assert np.abs(epipolar.sampson_residual(T[:3, :3], T[:3, 3], matches)).max() < 1e-3
    turned = lie.so3_exp([0, 0.01, 0]) @ T[:3, :3]
    assert np.median(np.abs(epipolar.sampson_residual(turned, T[:3, 3], matches))) > 0.3


def test_the_jacobian_is_the_derivative(matches):
    T = lie.invert(T_A_B @ lie.se3_exp([0.02, 0.01, 0, 0.01, 0, -0.01]))
    R, t = T[:3, :3], T[:3, 3] / np.linalg.norm(T[:3, 3])
    products = (matches.rays_b[:, :, None] * matches.rays_a[:, None, :]).reshape(-1, 9)
    weight = matches.weight[:, None]
    _, _, gradient, basis = epipolar._linearise(R[None], t[None], matches, products, weight, 1.0)
    for axis in range(5):
        step = np.zeros(5)
        step[axis] = 1e-6
        costs = []
        for sign in (1, -1):
            R_moved = lie.so3_exp(sign * step[:3]) @ R
            t_moved = t + sign * basis[0] @ step[3:]
            residual = epipolar.sampson_residual(R_moved, t_moved, matches)
            costs.append(np.sum(matches.weight * np.log1p(residual**2)))
        assert gradient[0, axis] == pytest.approx((costs[0] - costs[1]) / 4e-6, rel=1e-3, abs=0.5)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_fit_returns_from_nearby(matches, seed):
    rng = np.random.default_rng(seed)
    T = lie.invert(T_A_B)
    starts_R = lie.so3_exp(rng.normal(0, 0.02, (3, 3))) @ T[:3, :3]
    starts_t = T[:3, 3] / np.linalg.norm(T[:3, 3]) + rng.normal(0, 0.2, (3, 3))
    R, t, cost = epipolar.fit_epipolar(starts_R, starts_t, matches, 10, 1.0)
    R, t, cost = epipolar.fit_epipolar(R, t, matches, 20)
    best = int(np.argmin(cost))
    assert cost[best] < 1e-3
    np.testing.assert_allclose(R[best], T[:3, :3], atol=1e-5)
    assert abs(t[best] @ T[:3, 3]) / np.linalg.norm(T[:3, 3]) > 1 - 1e-6


def test_fit_rotation_is_exact_for_a_rotation():
    T = lie.rigid(lie.so3_exp([0.1, -0.2, 0.15]), np.zeros(3))
    matches = epipolar.select_matches(exact_correspondence(T, outliers=0.2)[0], CAMERA)
    R, _ = epipolar.fit_rotation(np.eye(3), matches)
    np.testing.assert_allclose(R, T[:3, :3].T, atol=1e-4)


def test_translation_follows_from_rotation(matches):
    T = lie.invert(T_A_B)
    t = epipolar.translation_given_rotation(T[:3, :3], matches)
    assert abs(t @ T[:3, 3]) / np.linalg.norm(T[:3, 3]) > 1 - 1e-5


def test_inverse_depths_are_exact(matches):
    _, view, _ = exact_correspondence(T_A_B)
    T = lie.invert(T_A_B)
    d, _ = epipolar.inverse_depths(T[:3, :3], T[:3, 3], matches.rays_a, matches.rays_b)
    np.testing.assert_allclose(1 / d, view.depth[matches.rows, matches.columns], rtol=0.02)
