"""A gyroscope between pictures: exact on a true one, careful with the others."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from flow3r_ros.geometry.gyro import MAX_GAP_NS, Gyro
from flow3r_ros.geometry.lie import rotation_angle, so3_exp
from flow3r_ros.types import Float64

FRAME_NS, READING_NS = 33_000_000, 5_000_000
STILL = np.zeros(3)


def rate_at(ns: int) -> Float64:
    """A hand that shakes, rad/s."""
    return np.array([1.0, -2.0, 0.5]) * np.sin(4.0 * ns * 1e-9)


def truth(from_ns: int, to_ns: int) -> Float64:
    """The turn, in fine steps."""
    R, steps = np.eye(3), 40
    for index in range(steps):
        middle = from_ns + (to_ns - from_ns) * (index + 0.5) / steps
        R = R @ so3_exp(rate_at(round(middle)) * (to_ns - from_ns) / steps * 1e-9)
    return R


def driven(told: Callable[[Float64], Float64], frames: int = 60) -> Gyro:
    """A gyroscope that tells the true rate as `told` changes it, beside pictures that see the
    truth."""
    gyro, ns = Gyro(), -READING_NS
    for frame in range(1, frames):
        now = frame * FRAME_NS
        while ns <= now:
            gyro.add(ns, told(rate_at(ns)))
            ns += READING_NS
        turn = gyro.turn(now - FRAME_NS, now)
        assert turn is not None
        gyro.learn(turn, truth(now - FRAME_NS, now), FRAME_NS * 1e-9)
    return gyro


def test_turns_are_exact_between_any_two_times() -> None:
    gyro = Gyro()
    for ns in range(0, 400_000_000, READING_NS):
        gyro.add(ns, rate_at(ns))
    for span in ((17_000_000, 50_123_456), (100_000_000, 350_000_000), (3, 9)):
        turn = gyro.turn(*span)
        assert turn is not None
        assert rotation_angle(turn.R.T @ truth(*span)) < 2e-4
        assert not turn.contradicts(so3_exp([1.0, 0, 0])), "nothing has confirmed it yet"


def test_nothing_is_known_where_rates_are_missing() -> None:
    gyro = Gyro()
    assert gyro.turn(0, FRAME_NS) is None
    for ns in (0, READING_NS, READING_NS + MAX_GAP_NS + 1, 2 * MAX_GAP_NS):
        gyro.add(ns, STILL)
    assert gyro.turn(0, READING_NS) is not None
    assert gyro.turn(0, 2 * MAX_GAP_NS) is None, "a gap"
    assert gyro.turn(2 * MAX_GAP_NS, 4 * MAX_GAP_NS) is None, "too late"
    assert gyro.turn(-2 * MAX_GAP_NS, 0) is None, "too early"
    assert gyro.turn(READING_NS, 0) is None, "backwards"


def test_a_bias_is_learnt_and_a_proven_gyroscope_contradicts() -> None:
    bias = np.array([0.02, -0.03, 0.01])
    gyro = driven(lambda rate: rate + bias, 200)
    np.testing.assert_allclose(gyro.bias, bias, atol=0.006)
    turn = gyro.turn(198 * FRAME_NS, 199 * FRAME_NS)
    assert turn is not None
    assert turn.proven
    assert not turn.contradicts(truth(198 * FRAME_NS, 199 * FRAME_NS))
    assert turn.contradicts(truth(198 * FRAME_NS, 199 * FRAME_NS) @ so3_exp([0.0, 0.05, 0.0]))


@pytest.mark.parametrize(
    "told", [lambda rate: rate[[1, 2, 0]], lambda rate: -rate, lambda rate: np.zeros(3) + 0.5]
)
def test_one_with_wrong_axes_is_not_believed(told: Callable[[Float64], Float64]) -> None:
    gyro = driven(told)
    turn = gyro.turn(58 * FRAME_NS, 59 * FRAME_NS)
    assert turn is not None
    assert not turn.proven
    assert turn.sigma > 0.3 * rotation_angle(turn.R)
