"""What the residuals of neighbouring corners have in common."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flow3r_ros.odometry.corner_pose import MIN_PAIRS, shared_variance


def corners(seed: int, count: int = 400) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.0, 400.0, (count, 2))


@given(st.integers(0, 1000))
@settings(max_examples=30, deadline=None)
def test_noise_of_single_corners_is_not_shared(seed: int) -> None:
    noise = np.random.default_rng(seed + 1).normal(0.0, 0.5, 400)
    assert shared_variance(corners(seed), noise, 40.0) < 0.2 * 0.5**2


@given(st.integers(0, 1000), st.floats(0.1, 1.0))
@settings(max_examples=30, deadline=None)
def test_what_a_region_is_off_by_is_shared(seed: int, off: float) -> None:
    pixels = corners(seed)
    bent = off * np.where(pixels[:, 0] < 200.0, 1.0, -1.0)
    noise = np.random.default_rng(seed + 1).normal(0.0, 0.1, len(pixels))
    assert np.isclose(shared_variance(pixels, bent + noise, 40.0), off**2, rtol=0.3)


def test_few_neighbours_say_nothing() -> None:
    assert np.isnan(shared_variance(np.empty((0, 2)), np.empty(0), 40.0))
    apart = 100.0 * np.arange(2 * MIN_PAIRS)[:, None] + np.zeros((1, 2))
    assert np.isnan(shared_variance(apart, np.ones(2 * MIN_PAIRS), 40.0))
