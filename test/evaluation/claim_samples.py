"""Runs that obey their covariances, made to order."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.evaluation.claims import Claims
from flow3r_ros.geometry.lie import hat, invert, rigid, so3_exp
from flow3r_ros.types import Float64
from test.evaluation.factories import random_poses

SCALE = 2.7
"""units of the truth per unit of the run"""


def honest_claims(
    seed: int = 0, frames: int = 400, position: float = 2e-3, rotation: float = 1e-3
) -> Claims:
    """A run that drifts by its own step covariances `N(0, Q)` and says so: every step is off by a
    draw in world axes, and the covariance of the pose is that of the whole way."""
    rng = np.random.default_rng(seed)
    truth = random_poses(rng, frames, step=0.05, turn=0.02)
    start = rigid(so3_exp(rng.normal(size=3)), rng.normal(size=3))
    units = np.array([position / SCALE] * 3 + [rotation] * 3)
    poses, covariances = [start], np.zeros((frames, 2, 6, 6))
    for k in range(1, frames):
        motion = invert(truth[k - 1]) @ truth[k]
        motion[:3, 3] /= SCALE
        spread = units[:, None] * rng.normal(size=(6, 6)) / np.sqrt(6)
        step = spread @ spread.T + np.diag((0.3 * units) ** 2)
        error = rng.multivariate_normal(np.zeros(6), step)
        pose = poses[-1] @ motion
        pose[:3, :3] = so3_exp(error[3:]) @ pose[:3, :3]
        pose[:3, 3] += error[:3]
        carry = np.eye(6)
        carry[:3, 3:] = -hat(pose[:3, 3] - poses[-1][:3, 3])
        covariances[k, 0] = carry @ covariances[k - 1, 0] @ carry.T + step
        covariances[k, 1] = step
        poses.append(pose)
    return Claims(
        np.arange(frames),
        np.stack(poses),
        truth,
        np.ones(frames, bool),
        np.ones(frames, bool),
        np.zeros(frames, np.int64),
        covariances,
        np.full(frames, 2.0 / SCALE),
    )


def bent(claims: Claims, frame: int, degrees: float = 0.0, metres: float = 0.0) -> Claims:
    """The run turned about itself and moved aside from one frame on: a jump that nothing says."""
    jump = rigid(so3_exp([0.0, np.radians(degrees), 0.0]), (metres / SCALE, 0.0, 0.0))
    at = claims.poses[frame]
    moved: Float64 = claims.poses.copy()
    moved[frame:] = at @ jump @ invert(at) @ moved[frame:]
    return replace(claims, poses=moved)
