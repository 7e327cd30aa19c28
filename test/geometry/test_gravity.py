"""Down, by an accelerometer at rest; nothing by one that is moved."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.gravity import Gravity
from flow3r_ros.geometry.lie import so3_exp

DOWN = np.array([0.0, 1.0, 0.0])


def test_a_resting_unit_levels_whatever_its_attitude() -> None:
    rng = np.random.default_rng(0)
    for attitude in (np.zeros(3), [0.3, 0.0, 0.2], [np.pi, 0.0, 0.0], [0.0, 2.0, 0.0], [1.5, 1, 1]):
        gravity, R = Gravity(), so3_exp(attitude)
        for _ in range(50):
            gravity.add(R.T @ (-9.81 * DOWN) + 0.05 * rng.normal(size=3))
        level = gravity.levelling(DOWN)
        assert level is not None
        np.testing.assert_allclose(level @ R.T @ DOWN, DOWN, atol=0.01)


def test_a_moved_unit_says_nothing() -> None:
    assert Gravity().levelling(DOWN) is None
    swinging, falling = Gravity(), Gravity()
    for index in range(50):
        swinging.add(-9.81 * DOWN + 3.0 * np.sin(index) * np.array([1.0, 0.0, 0.0]))
        falling.add(np.zeros(3))
    assert swinging.levelling(DOWN) is None
    assert falling.levelling(DOWN) is None
