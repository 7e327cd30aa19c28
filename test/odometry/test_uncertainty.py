"""Covariances stay symmetric and positive, and grow with the way and with unseen time."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.odometry.uncertainty import (
    TILT,
    TURN,
    UNIT,
    Drift,
    bridgeable,
    handed_on,
    in_world,
    lost,
    misfit_px,
    of_information,
    step_covariance,
    unseen,
)
from flow3r_ros.types import Float64

vectors = st.lists(st.floats(-3.0, 3.0), min_size=3, max_size=3).map(np.array)


def some(seed: int) -> Float64:
    root = np.random.default_rng(seed).normal(size=(6, 6))
    return np.asarray(root @ root.T)


def is_covariance(matrix: Float64) -> bool:
    return bool(
        np.allclose(matrix, matrix.T) and np.linalg.eigvalsh(matrix).min() > -1e-9 * matrix.max()
    )


@given(st.integers(0, 100), vectors, vectors)
@settings(max_examples=40, deadline=None)
def test_every_step_leaves_a_covariance(seed: int, turn: Float64, way: Float64) -> None:
    turned = in_world(some(seed), so3_exp(turn))
    assert is_covariance(turned)
    assert np.isclose(np.trace(turned), np.trace(some(seed)))
    assert is_covariance(handed_on(turned, way))
    assert is_covariance(step_covariance(some(seed), 2.0, 0.1))


def test_an_uncertain_turn_moves_what_is_far_across_the_way() -> None:
    covariance = np.diag([0.0, 0, 0, 0, 0, 0.01])
    far = handed_on(covariance, np.array([10.0, 0, 0]))
    np.testing.assert_allclose(np.diag(far)[:3], [0.0, 1.0, 0.0], atol=1e-12)
    twice = handed_on(handed_on(covariance, np.array([4.0, 0, 0])), np.array([6.0, 0, 0]))
    np.testing.assert_allclose(twice, far)


def test_it_grows_with_the_way() -> None:
    covariance, traces = np.zeros((6, 6)), []
    for _ in range(10):
        covariance = handed_on(covariance, np.array([0.1, 0, 0]))
        covariance = covariance + step_covariance(np.zeros((6, 6)), 2.0, 0.1)
        traces.append(float(np.trace(covariance)))
    assert traces == sorted(traces)
    assert traces[-1] > 10 * traces[0]


def test_residuals_that_neighbours_share_make_a_step_less_sure() -> None:
    assert misfit_px(0.04**2) == misfit_px(0.0) > 0.0
    assert misfit_px(0.5**2) > misfit_px(0.2**2) > misfit_px(0.04**2)
    calm, doubtful = (step_covariance(some(1), 2.0, misfit_px(px**2)) for px in (0.04, 0.5))
    assert (np.diag(doubtful) > np.diag(calm)).all()


def test_motion_alone_says_little_after_half_a_second() -> None:
    assert bridgeable(0.1)
    assert not bridgeable(1.0)


def test_unseen_time_counts_with_its_square_and_the_scene() -> None:
    np.testing.assert_allclose(unseen(2.0, 1.0), 4 * unseen(1.0, 1.0))
    np.testing.assert_allclose(np.diag(unseen(1.0, 3.0))[:3], 9 * np.diag(unseen(1.0, 1.0))[:3])
    assert not unseen(0.0, 1.0).any()


def test_information_is_turned_round_and_what_is_open_stays_finite() -> None:
    np.testing.assert_allclose(of_information(some(1)) @ some(1), np.eye(6), atol=1e-6)
    assert np.isfinite(of_information(np.diag([0.0, 1, 1, 1, 1, 1]))).all()
    assert np.diag(lost()).min() >= 1e6


def test_what_frames_of_a_keyframe_share_grows_with_the_way_not_its_root() -> None:
    drift, total = Drift(), np.zeros((6, 6))
    for step in range(1, 11):
        place = rigid(np.eye(3), np.array([0.1 * step, 0.0, 0.0]))
        slip, more = drift.through(7, place, 0.5, 2.0)
        assert (np.linalg.eigvalsh(more) >= 0).all()
        total = total + slip + more
    assert np.isclose(np.sqrt(total[0, 0]), 0.5 * UNIT * 1.0)
    assert np.isclose(np.sqrt(total[3, 3]), 0.5 * TILT * 1.0 / 2.0)
    slip, more = drift.through(8, rigid(so3_exp(np.array([0.0, 0.2, 0.0])), np.zeros(3)), 0.5, 2.0)
    assert np.isclose(slip[4, 4], (0.5 * TURN * 0.2) ** 2)
    assert not more.any()


def test_a_focal_length_that_is_not_known_makes_turns_less_sure() -> None:
    turned = rigid(so3_exp(np.array([0.0, 0.2, 0.0])), np.zeros(3))
    known, _ = Drift().through(1, turned, 0.0, 2.0)
    drift = Drift()
    drift.refocus(0.05)
    open_, _ = drift.through(1, turned, 0.0, 2.0)
    assert not known.any()
    assert np.isclose(open_[4, 4], (0.05 * 0.2) ** 2)
