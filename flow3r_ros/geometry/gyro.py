"""How a camera turned between two pictures, by a gyroscope that is fixed to it.

Rates are integrated between the stamps of pictures (trapezoids on SO(3)); the bias is learnt from
turns that the pictures showed, and so is what a turn is worth: a gyroscope with wrong extrinsics,
or a clock of its own, is trusted less with every turn that it tells wrongly. The rotation is that
of Forster et al., "On-Manifold Preintegration", TRO 2017, sec. V-A, without its noise model, which
drivers do not give.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import rotation_angle, so3_exp, so3_log
from flow3r_ros.types import Float64

MAX_GAP_NS = 50_000_000
"""between two rates, and from the last rate to a picture; beyond it nothing is known"""
HISTORY_NS = 2_000_000_000
"""rates older than this are forgotten: longer turns are not asked for"""
RATE_SIGMA, LEAST_SIGMA = 0.02, 5e-4
"""rad/s and rad: 1-sigma of a rate as long as its bias is being learnt, and of any turn"""
FIRST_SHARE, LEAST_SHARE = 0.2, 0.01
"""1-sigma of a turn as a share of it, before pictures have confirmed any, and at best"""
MEMORY = 0.9
"""share of what was known of that share that one more turn leaves"""
BIAS_GAIN = 0.02
"""share of a difference of rates that the bias takes on with a picture: a second and a half of a
30 Hz camera"""
TURNING = 5e-3
"""rad from one picture to the next from which a turn says something about the gyroscope"""
PROVEN, PROVEN_SHARE = 10, 0.1
"""turns that pictures have confirmed, and the share at most, before a gyroscope may contradict"""
CONTRADICTION, ROOM = 6.0, 0.01
"""sigmas of a turn, and rad of a picture's own error, beyond which a pose is contradicted"""


@dataclass(frozen=True)
class Turn:
    """The rotation `R` `[3, 3]` of a camera from one time to another, in its own axes (the attitude
    then times `R` is that now); its 1-sigma in rad; whether the gyroscope has `proven` right."""

    R: Float64
    sigma: float
    proven: bool = False

    def contradicts(self, R: Float64) -> bool:
        """Whether a rotation `[3, 3]` between the same times is out of the question."""
        return self.proven and rotation_angle(self.R.T @ R) > CONTRADICTION * self.sigma + ROOM


class Gyro:
    """The rates of one gyroscope, in the camera's optical axes; `bias` `[3]` rad/s."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """No rates, and nothing learnt."""
        self._stamps: list[int] = []
        self._rates: list[Float64] = []
        self.bias = np.zeros(3)
        self._share = FIRST_SHARE
        self._confirmed = 0

    def add(self, stamp_ns: int, rate: Float64) -> None:
        """Take a rate `[3]`, rad/s; one that is not later than the last is left out."""
        if self._stamps and stamp_ns <= self._stamps[-1]:
            if stamp_ns > self._stamps[-1] - HISTORY_NS:
                return
            self._stamps.clear()  # time has started over
            self._rates.clear()
        self._stamps.append(stamp_ns)
        self._rates.append(np.asarray(rate, np.float64))
        old = bisect_left(self._stamps, stamp_ns - HISTORY_NS)
        if old > len(self._stamps) // 2:
            del self._stamps[:old], self._rates[:old]

    def turn(self, from_ns: int, to_ns: int) -> Turn | None:
        """The turn between two times; None where rates are missing."""
        first = bisect_left(self._stamps, from_ns)
        last = bisect_left(self._stamps, to_ns)
        first = max(first - (first == len(self._stamps) or self._stamps[first] > from_ns), 0)
        stamps = np.array(self._stamps[first : last + 1], np.int64) - from_ns
        span = to_ns - from_ns
        if span <= 0 or not len(stamps) or not _covered(stamps, span):
            return None
        rates = np.array(self._rates[first : last + 1])
        inside = (stamps > 0) & (stamps < span)
        knots = np.concatenate([[0], stamps[inside], [span]]).astype(np.float64)
        at = np.stack([np.interp(knots, stamps, rates[:, axis]) for axis in range(3)], axis=1)
        steps = (0.5 * (at[1:] + at[:-1]) - self.bias) * (1e-9 * np.diff(knots)[:, None])
        R = np.eye(3)
        for step in steps:
            R = R @ so3_exp(step)
        sigma = float(
            np.hypot(LEAST_SIGMA + RATE_SIGMA * 1e-9 * span, self._share * rotation_angle(R))
        )
        proven = self._confirmed >= PROVEN and self._share < PROVEN_SHARE
        return Turn(R, sigma, proven)

    def learn(self, turn: Turn, R: Float64, seconds: float) -> None:
        """Compare a turn with the rotation `[3, 3]` that believed pictures show over the same
        `seconds`: the bias, and what the gyroscope is worth, follow."""
        off, angle = so3_log(turn.R.T @ R), rotation_angle(turn.R)
        size = float(np.linalg.norm(off))
        if angle > TURNING:
            beyond = size - 2.0 * (LEAST_SIGMA + RATE_SIGMA * seconds)  # what no bias explains
            share = min(max(beyond / angle, LEAST_SHARE), 1.0)
            self._share = MEMORY * self._share + (1.0 - MEMORY) * share
            self._confirmed += 1
        if size < CONTRADICTION * turn.sigma:
            self.bias = self.bias - BIAS_GAIN * off / max(seconds, 1e-3)


def _covered(stamps: NDArray[np.int64], span: int) -> bool:
    """Whether rates at `stamps` (nanoseconds from the begin of a span) leave no gap in it."""
    ends = np.concatenate([[min(0, int(stamps[0]))], stamps, [max(span, int(stamps[-1]))]])
    return bool(np.all(np.diff(ends) <= MAX_GAP_NS))
