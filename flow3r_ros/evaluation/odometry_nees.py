"""Do the covariances that a filter gets hold? Published odometry beside the truth.

NEES (Bar-Shalom et al., 2001, section 5.4) over its degrees of freedom: one on average where a
covariance is right, above one where it is too sure. The unit of the odometry is taken from the
truth, once for all messages; the origin is the first message's.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.geometry.lie import invert, se3_log
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_alignment import associate
from flow3r_ros.types import LOST_VARIANCE, Float64


def odometry_nees(
    published: Trajectory,
    covariances: Float64,
    twists: Float64,
    twist_covariances: Float64,
    reference: Trajectory,
) -> dict[str, Any]:
    """NEES of positions against the origin (`position`, over 3) and of twists (`twist`, over 6),
    each with `median`, `mean` and `messages`.

    Args:
        published: poses of the camera in `odom`, axes of `odom` whatever they are.
        covariances: `[N, 6, 6]` of the poses, in axes of `odom`.
        twists: `[N, 6]` in the camera's axes, a second.
        twist_covariances: `[N, 6, 6]`.

    Raises:
        EvaluationError: fewer than three stamps match.
    """
    mine, theirs = associate(published, reference)
    poses, truth = published.poses[mine], reference.poses[theirs]
    axes = poses[0, :3, :3]
    poses, truth = invert(poses[0]) @ poses, invert(truth[0]) @ truth
    way, true_way = poses[:, :3, 3], truth[:, :3, 3]
    unit = float(np.sum(way * true_way) / max(float(np.sum(way * way)), 1e-30))
    units = np.array([unit] * 3 + [1.0] * 3)
    positions, velocities = [], []
    for k in range(1, len(mine)):
        covariance = unit**2 * axes.T @ covariances[mine[k], :3, :3] @ axes
        if np.trace(covariance) < LOST_VARIANCE * unit**2:
            positions.append(_squared(unit * way[k] - true_way[k], covariance) / 3)
        seconds = 1e-9 * float(published.stamps_ns[mine[k]] - published.stamps_ns[mine[k - 1]])
        covariance = twist_covariances[mine[k]] * np.outer(units, units)
        if mine[k] == mine[k - 1] + 1 and covariance[5, 5] < LOST_VARIANCE:
            true_twist = se3_log(invert(truth[k - 1]) @ truth[k]) / seconds
            velocities.append(_squared(units * twists[mine[k]] - true_twist, covariance) / 6)
    return {"position": _spread(positions), "twist": _spread(velocities)}


def _squared(error: Float64, covariance: Float64) -> float:
    """Squared Mahalanobis length; infinite where the covariance is none."""
    if np.linalg.eigvalsh(covariance)[0] <= 0:
        return float("inf")
    return float(error @ np.linalg.solve(covariance, error))


def _spread(values: list[float]) -> dict[str, float]:
    if not values:
        return {"messages": 0}
    return {
        "median": float(np.median(values)), "mean": float(np.mean(values)), "messages": len(values),
    }  # fmt: skip
