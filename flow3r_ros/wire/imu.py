"""`sensor_msgs/Imu` as a reading in the camera's optical axes, by the static transforms."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np

from flow3r_ros.geometry.frames import R_BODY_OPTICAL
from flow3r_ros.types import Float64, Inertial
from flow3r_ros.wire.frames import Say
from flow3r_ros.wire.transforms import StaticTransforms, stamp_ns

KEPT = 200
"""messages kept until the first image: a second of them tells what is down"""
UNMEASURED = -1.0
"""first entry of a covariance whose quantity the unit does not measure (sensor_msgs/Imu)"""


class ImuReader:
    """Turns the messages of one inertial unit; only rotations count, not where it sits.

    Args:
        static: the transforms that hold the unit's frame and the camera's.
        base_frame: the frame that a level odometry is level in; empty: the camera's own.
        say: receives remarks, each under a key.
    """

    def __init__(self, static: StaticTransforms, base_frame: str, say: Say) -> None:
        self._static, self._base_frame, self._say = static, base_frame, say
        self._kept: deque[Any] = deque(maxlen=KEPT)

    def readings(self, message: Any | None, optical_frame: str) -> list[Inertial]:
        """The readings of a message, and of those that were kept because the optical frame was not
        known yet (empty); those that say nothing are left out, which is said."""
        if message is not None:
            self._kept.append(message)
        if not optical_frame:
            return []
        kept, self._kept = self._kept, deque(maxlen=KEPT)
        found = [self._reading(each, optical_frame) for each in kept]
        return [reading for reading in found if reading is not None]

    def _reading(self, message: Any, optical_frame: str) -> Inertial | None:
        frame = str(message.header.frame_id).lstrip("/")
        turn = self._static.lookup(optical_frame, frame)
        if turn is None:
            self._say(
                f"imu {frame}",
                f"imu: no static transform {optical_frame} -> {frame} on /tf_static: not used",
            )
            return None
        down = R_BODY_OPTICAL.T @ np.array([0.0, 0.0, -1.0])
        if self._base_frame:
            T_base_optical = self._static.lookup(self._base_frame, optical_frame)
            if T_base_optical is None:
                return None
            down = T_base_optical[:3, :3].T @ np.array([0.0, 0.0, -1.0])
        R = turn[:3, :3]
        rate = _turned(R, message.angular_velocity, message.angular_velocity_covariance)
        felt = _turned(R, message.linear_acceleration, message.linear_acceleration_covariance)
        if rate is None and felt is None:
            self._say("imu values", "imu: readings that are not finite, or not measured: not used")
            return None
        return Inertial(stamp_ns(message.header.stamp), rate, felt, down)


def _turned(R: Float64, vector: Any, covariance: Any) -> Float64 | None:
    """A vector of a message in other axes; None where it is not measured or not finite."""
    values = np.array([vector.x, vector.y, vector.z], np.float64)
    if float(covariance[0]) == UNMEASURED or not np.isfinite(values).all():
        return None
    return np.asarray(R @ values)
