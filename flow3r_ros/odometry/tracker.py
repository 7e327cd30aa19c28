"""Tracking state and motion prediction.

A frame's pose is *trusted* when the network or geometry explains the images; otherwise it is bridged with the last velocity and the
state says so: DEGRADED at once, LOST after `lost_after` frames, TRACKING again with the first trusted pose.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import invert, se3_exp, se3_log
from flow3r_ros.types import Float64, TrackingState

LOST_DAMPING = 0.8
"""share of the velocity kept from one bridged frame to the next"""


class Tracker:
    """Follows the state from frame to frame and predicts the next pose from the last two."""

    def __init__(self, lost_after: int) -> None:
        self.lost_after = lost_after
        self.reset()

    def reset(self) -> None:
        """Back to INITIALIZING without any pose."""
        self.state = TrackingState.INITIALIZING
        self.untrusted = 0
        self._pose: Float64 | None = None
        self._stamp_ns = 0
        self._velocity = np.zeros(6)

    def predict(self, stamp_ns: int) -> Float64:
        """Camera-to-world pose `[4, 4]` at a later stamp with the last velocity (a twist per nanosecond in the camera's frame)."""
        if self._pose is None:
            return np.eye(4)
        return np.asarray(self._pose @ se3_exp(self._velocity * float(stamp_ns - self._stamp_ns)))

    def update(self, pose: Float64, stamp_ns: int, trusted: bool, sure: bool = True) -> TrackingState:
        """Take the pose a frame got and return the state; `sure` False marks a trusted pose that geometry explains only partly."""
        if self._pose is not None and stamp_ns > self._stamp_ns:
            measured = se3_log(invert(self._pose) @ pose) / float(stamp_ns - self._stamp_ns)
            self._velocity = measured if trusted else LOST_DAMPING * self._velocity
        first = self._pose is None
        self._pose, self._stamp_ns = pose, stamp_ns
        if first:
            return self.state
        self.untrusted = 0 if trusted else self.untrusted + 1
        if trusted:
            self.state = TrackingState.TRACKING if sure else TrackingState.DEGRADED
        elif self.untrusted >= self.lost_after:
            self.state = TrackingState.LOST
        else:
            self.state = TrackingState.DEGRADED
        return self.state

    def rebase(self, correction: Float64) -> None:
        """Move the last pose by a world-frame correction `[4, 4]` (after older poses were refined)."""
        if self._pose is not None:
            self._pose = correction @ self._pose
