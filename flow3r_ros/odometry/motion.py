"""How the camera moves when nothing is seen: with the velocity it had, slowing down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flow3r_ros.geometry.gyro import Turn
from flow3r_ros.geometry.lie import invert, rigidified, se3_exp, se3_log, so3_log
from flow3r_ros.types import Float64

ACCELERATION, TURNING = 8.0, 15.0
"""1-sigma of what a camera's velocity changes within a second: median depths, and rad, a second"""
LEAST_SIGMA = 1e-3
"""smallest sigma of a prediction, median depths and rad"""
TOLD, LEAST_TOLD = 3.0, 0.01
"""sigmas and rad that a gyroscope's turn counts with in a pose: it says where to look, and must not
pull what is then judged beside it"""
REST_SPEED, REST_TURN = 0.02, 0.02
"""median depths and rad a second below which a camera is at rest"""
DAMPING = 0.8
"""share of the velocity kept from one unmeasured frame to the next"""


@dataclass(frozen=True)
class Motion:
    """Constant velocity, `known` once it was measured: `pose` `[4, 4]` camera-to-world at
    `stamp_ns`, `velocity` `[6]` a twist
    (translation, rotation) per nanosecond in the camera's axes; `turn_sigma` rad of the next
    rotation, where a gyroscope tells it."""

    pose: Float64
    stamp_ns: int
    velocity: Float64
    known: bool = True
    turn_sigma: float | None = None

    def predict(self, stamp_ns: int) -> Float64:
        """Camera-to-world pose `[4, 4]` at another stamp."""
        return np.asarray(self.pose @ se3_exp(self.velocity * float(stamp_ns - self.stamp_ns)))

    def prior(self, stamp_ns: int, unit: float) -> Float64 | None:
        """Information `[6, 6]` about the predicted pose (translation, rotation in its own axes);
        `unit` is the median depth. None while nothing is known of the velocity."""
        if not self.known and self.turn_sigma is None:
            return None
        seconds = max(stamp_ns - self.stamp_ns, 1_000_000) * 1e-9
        sigma = np.array([ACCELERATION * unit] * 3 + [TURNING] * 3) * seconds**2
        if self.turn_sigma is not None:
            sigma[3:] = np.minimum(sigma[3:], self.turn_sigma) if self.known else self.turn_sigma
        if not self.known:
            sigma[:3] = np.inf
        return np.asarray(np.diag(1.0 / np.maximum(sigma, LEAST_SIGMA) ** 2))

    def turning(self, turn: Turn | None, stamp_ns: int) -> Motion:
        """The motion that a gyroscope says leads to `stamp_ns`; unchanged where it says nothing."""
        if turn is None or stamp_ns <= self.stamp_ns:
            return self
        rotation = so3_log(turn.R) / float(stamp_ns - self.stamp_ns)
        velocity = np.concatenate([self.velocity[:3], rotation])
        sigma = max(TOLD * turn.sigma, LEAST_TOLD)
        return Motion(self.pose, self.stamp_ns, velocity, self.known, sigma)

    def through(self, pose: Float64, stamp_ns: int) -> Motion:
        """The motion that leads from here to a measured pose `[4, 4]`, and on from there."""
        if stamp_ns <= self.stamp_ns:
            return Motion(pose, stamp_ns, self.velocity)
        taken = float(stamp_ns - self.stamp_ns)
        return Motion(pose, stamp_ns, se3_log(invert(self.pose) @ pose) / taken)

    def bridged(self, stamp_ns: int) -> Motion:
        """The motion at a frame that nothing measured."""
        return Motion(
            rigidified(self.predict(stamp_ns)), stamp_ns, DAMPING * self.velocity, known=False
        )

    def moves(self, unit: float) -> bool:
        """Whether this is more than rest; `unit` is the median depth."""
        speed, turn = np.linalg.norm(self.velocity.reshape(2, 3), axis=1) * 1e9
        return bool(speed > REST_SPEED * unit or turn > REST_TURN)

    def standing(self, stamp_ns: int) -> Motion:
        """The same place and velocity at another stamp."""
        return Motion(self.pose, stamp_ns, self.velocity)

    def moved_to(self, pose: Float64) -> Motion:
        """The same velocity at a pose that is known better now."""
        return Motion(rigidified(pose), self.stamp_ns, self.velocity, self.known)


def at_rest(pose: Float64, stamp_ns: int) -> Motion:
    """No velocity."""
    return Motion(pose, stamp_ns, np.zeros(6), known=False)
