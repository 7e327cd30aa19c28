"""Measured covariance: what the parts disagree about, never a constant.

Three sources add up: the spread of the newest pose over the shared frames of a window (seam
disagreement), the spread between the network's and geometry's pose, and the information of the
geometric refinement. Bridged frames inflate what was there; a lost camera gets a covariance that no
filter can take for knowledge.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import so3_log
from flow3r_ros.types import LOST_VARIANCE, Float64

FLOOR = np.array([1e-4, 1e-4, 1e-4, 5e-5, 5e-5, 5e-5]) ** 2
"""smallest variances: translation relative to the median depth, rotation in rad"""
GROWTH = 4.0
"""factor of the covariance per bridged frame"""


def pose_difference(pose: Float64, other: Float64) -> Float64:
    """Difference `[6]` (translation in world axes, rotation vector in world axes) that takes `pose`
    to `other`."""
    return np.concatenate([other[:3, 3] - pose[:3, 3], so3_log(other[:3, :3] @ pose[:3, :3].T)])


def spread(pose: Float64, others: list[Float64]) -> Float64:
    """Covariance `[6, 6]` of alternative poses about the chosen one (zero without alternatives)."""
    if not others:
        return np.zeros((6, 6))
    differences = np.stack([pose_difference(pose, other) for other in others])
    return np.asarray(differences.T @ differences / len(others))


def pose_covariance(disagreement: Float64, median_depth: float) -> Float64:
    """Covariance `[6, 6]` of a trusted pose.

    Args:
        disagreement: `spread` over candidates and shared frames.
        median_depth: of the frame, odometry units; translation noise is proportional to it.
    """
    covariance = disagreement + np.diag(FLOOR * np.array([median_depth**2] * 3 + [1.0] * 3))
    return np.asarray((covariance + covariance.T) / 2.0)


def bridged(previous: Float64, median_depth: float) -> Float64:
    """Covariance after one more frame without a measurement: grows monotonically, capped at
    lost."""
    step = np.diag(np.array([(0.02 * median_depth) ** 2] * 3 + [0.01**2] * 3))
    grown = GROWTH * previous + step
    return np.asarray(grown if np.trace(grown) < LOST_VARIANCE else lost())


def lost() -> Float64:
    """Covariance that says: nothing is known."""
    return np.asarray(np.eye(6) * LOST_VARIANCE)
