"""Which way is down, by an accelerometer at rest."""

from __future__ import annotations

from collections import deque

import numpy as np

from flow3r_ros.geometry.lie import so3_exp
from flow3r_ros.types import Float64

STANDARD = 9.81
"""m/s^2"""
WITHIN, SPREAD = 0.8, 0.6
"""m/s^2: most that the mean of a resting accelerometer differs from gravity, and most that its
readings differ from their mean (root mean square)"""
LEAST, KEPT = 5, 100
"""readings without which nothing is said, and how many are looked at"""


class Gravity:
    """The latest accelerations, in the camera's optical axes."""

    def __init__(self) -> None:
        self._readings: deque[Float64] = deque(maxlen=KEPT)

    def reset(self) -> None:
        """No readings."""
        self._readings.clear()

    def add(self, acceleration: Float64) -> None:
        """Take a reading `[3]`, m/s^2: gravity's reaction points up."""
        self._readings.append(np.asarray(acceleration, np.float64))

    def levelling(self, down: Float64) -> Float64 | None:
        """The least rotation `[3, 3]` that brings what is down here to `down` `[3]` (a unit vector
        of the world); None while the readings do not show gravity alone."""
        if len(self._readings) < LEAST:
            return None
        readings = np.array(self._readings)
        mean = readings.mean(axis=0)
        size = float(np.linalg.norm(mean))
        spread = float(np.sqrt(np.mean(np.sum((readings - mean) ** 2, axis=1))))
        if abs(size - STANDARD) > WITHIN or spread > SPREAD:
            return None
        here = -mean / size
        axis, cosine = np.cross(here, down), float(np.dot(here, down))
        sine = float(np.linalg.norm(axis))
        if sine < 1e-9:
            return np.eye(3) if cosine > 0 else so3_exp(np.pi * _across(down))
        return so3_exp(np.arctan2(sine, cosine) * axis / sine)


def _across(direction: Float64) -> Float64:
    """A unit vector at right angles to another one."""
    axis = np.cross(direction, np.eye(3)[int(np.argmin(np.abs(direction)))])
    return np.asarray(axis / np.linalg.norm(axis))
