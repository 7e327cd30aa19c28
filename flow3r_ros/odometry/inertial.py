"""An inertial unit beside the pictures: its gyroscope says how the camera turned, as a prior for
the pose and as evidence about it; at rest its accelerometer says what is down. Without readings
nothing changes.

Owns the readings and what was learnt about them.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.geometry.gravity import Gravity
from flow3r_ros.geometry.gyro import Gyro, Turn
from flow3r_ros.geometry.lie import rigid
from flow3r_ros.odometry.verification import STRONG_AGREEMENT, Verdict
from flow3r_ros.types import Float64, Inertial


class InertialUnit:
    """See the module; outlives resets, as the unit does."""

    def __init__(self) -> None:
        self._gyro, self._gravity = Gyro(), Gravity()
        self._level: Float64 | None = None
        self._begun = False

    def restart(self) -> None:
        """A new world begins: it may be made level."""
        self._gravity.reset()
        self._level, self._begun = None, False

    def add(self, reading: Inertial) -> None:
        """Take a reading; see `Engine.add_inertial`."""
        if reading.rate is not None:
            self._gyro.add(reading.stamp_ns, reading.rate)
        if reading.acceleration is not None and not self._begun:
            self._gravity.add(reading.acceleration)
            self._level = self._gravity.levelling(reading.down)

    def first_pose(self, pose: Float64) -> Float64:
        """Pose `[4, 4]` of the first frame of a world: level where gravity was felt; afterwards
        `pose`, as it is."""
        begun, self._begun = self._begun, True
        return pose if begun or self._level is None else rigid(self._level, np.zeros(3))

    def turn(self, from_ns: int, to_ns: int) -> Turn | None:
        """How the camera turned between two frames; None where that is not known."""
        return self._gyro.turn(from_ns, to_ns)

    def beside(self, verdict: Verdict, turn: Turn, seen: Float64, seconds: float) -> Verdict:
        """The verdict on a pose that turned by `seen` `[3, 3]` in `seconds` since a believed frame,
        with the gyroscope's word for it, whose worth is learnt from poses that are believed.

        A proven gyroscope refuses another turn, and takes the place of a picture that does not look
        alike where many corners agree: fast turns leave little of the keyframe to look at.
        """
        if not verdict.believed:
            confirms = turn.proven and not turn.contradicts(seen)
            enough = confirms and verdict.agreement >= STRONG_AGREEMENT
            return replace(verdict, believed=True, reason="") if enough else verdict
        self._gyro.learn(turn, seen, seconds)
        if not turn.contradicts(seen):
            return verdict
        return replace(verdict, believed=False, reason="the gyroscope contradicts the turn")
