"""Tracking state and motion prediction.

A frame's pose is *trusted* when the network or geometry explains the images; otherwise it is
bridged with the last velocity and the state says so: DEGRADED at once, LOST after `lost_after`
frames, TRACKING again with the first trusted pose.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flow3r_ros.geometry.lie import invert, se3_exp, se3_log
from flow3r_ros.types import Float64, TrackingState

LOST_DAMPING = 0.8
"""share of the velocity kept from one bridged frame to the next"""


@dataclass(frozen=True)
class Motion:
    """Constant velocity: `pose` `[4, 4]` camera-to-world at `stamp_ns`, `velocity` `[6]` a twist
    per nanosecond in the camera's frame."""

    pose: Float64
    stamp_ns: int
    velocity: Float64

    def predict(self, stamp_ns: int) -> Float64:
        """Camera-to-world pose `[4, 4]` at another stamp."""
        return np.asarray(self.pose @ se3_exp(self.velocity * float(stamp_ns - self.stamp_ns)))

    def through(self, pose: Float64, stamp_ns: int) -> Motion:
        """The motion that leads from here to a later pose `[4, 4]`, and on from there."""
        if stamp_ns <= self.stamp_ns:
            return Motion(pose, stamp_ns, self.velocity)
        return Motion(
            pose, stamp_ns, se3_log(invert(self.pose) @ pose) / float(stamp_ns - self.stamp_ns)
        )


class Tracker:
    """Follows the state and the motion from frame to frame."""

    def __init__(self, lost_after: int) -> None:
        self.lost_after = lost_after
        self.reset()

    def reset(self) -> None:
        """Back to INITIALIZING without any pose."""
        self.state = TrackingState.INITIALIZING
        self.untrusted = 0
        self.motion = Motion(np.eye(4), 0, np.zeros(6))
        self._started = False

    def restart(self, stamp_ns: int) -> None:
        """Go on from the last pose at `stamp_ns`; where that lies in the past, at rest."""
        self.untrusted = 0
        if stamp_ns <= self.motion.stamp_ns:
            self.motion = Motion(self.motion.pose, stamp_ns, np.zeros(6))

    def update(
        self, pose: Float64, stamp_ns: int, trusted: bool, sure: bool = True
    ) -> TrackingState:
        """Take the pose a frame got and return the state; `sure` False marks a trusted pose that
        geometry explains only partly."""
        if not self._started:
            self._started, self.motion = True, Motion(pose, stamp_ns, np.zeros(6))
            return self.state
        onward = self.motion.through(pose, stamp_ns)
        self.motion = (
            onward if trusted else replace(onward, velocity=LOST_DAMPING * self.motion.velocity)
        )
        self.untrusted = 0 if trusted else self.untrusted + 1
        if trusted:
            self.state = TrackingState.TRACKING if sure else TrackingState.DEGRADED
        elif self.untrusted >= self.lost_after:
            self.state = TrackingState.LOST
        else:
            self.state = TrackingState.DEGRADED
        return self.state
