"""How the camera moves when nothing is seen: with the velocity it had, slowing down."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flow3r_ros.geometry.lie import invert, se3_exp, se3_log
from flow3r_ros.types import Float64

DAMPING = 0.8
"""share of the velocity kept from one unmeasured frame to the next"""


@dataclass(frozen=True)
class Motion:
    """Constant velocity: `pose` `[4, 4]` camera-to-world at `stamp_ns`, `velocity` `[6]` a twist
    (translation, rotation) per nanosecond in the camera's axes."""

    pose: Float64
    stamp_ns: int
    velocity: Float64

    def predict(self, stamp_ns: int) -> Float64:
        """Camera-to-world pose `[4, 4]` at another stamp."""
        return np.asarray(self.pose @ se3_exp(self.velocity * float(stamp_ns - self.stamp_ns)))

    def through(self, pose: Float64, stamp_ns: int) -> Motion:
        """The motion that leads from here to a measured pose `[4, 4]`, and on from there."""
        if stamp_ns <= self.stamp_ns:
            return Motion(pose, stamp_ns, self.velocity)
        taken = float(stamp_ns - self.stamp_ns)
        return Motion(pose, stamp_ns, se3_log(invert(self.pose) @ pose) / taken)

    def bridged(self, stamp_ns: int) -> Motion:
        """The motion at a frame that nothing measured."""
        return Motion(self.predict(stamp_ns), stamp_ns, DAMPING * self.velocity)

    def moved_by(self, velocity: Float64) -> Motion:
        """The same place with another velocity `[6]`."""
        return Motion(self.pose, self.stamp_ns, velocity)

    def moved_to(self, pose: Float64) -> Motion:
        """The same velocity at a pose that is known better now."""
        return Motion(pose, self.stamp_ns, self.velocity)


def at_rest(pose: Float64, stamp_ns: int) -> Motion:
    """No velocity."""
    return Motion(pose, stamp_ns, np.zeros(6))
