"""Small measures of camera motion that several metrics share; poses are camera-to-world 4x4
float64."""

from __future__ import annotations

import numpy as np

from flow3r_ros.types import Float64


def rotation_angle(rotations: Float64) -> Float64:
    """Angle of rotation matrices `[..., 3, 3]` in radians, accurate near 0 and near pi."""
    twist = np.stack(
        [
            rotations[..., 2, 1] - rotations[..., 1, 2],
            rotations[..., 0, 2] - rotations[..., 2, 0],
            rotations[..., 1, 0] - rotations[..., 0, 1],
        ],
        axis=-1,
    )
    sine = np.linalg.norm(twist, axis=-1)
    cosine = np.trace(rotations, axis1=-2, axis2=-1) - 1.0
    return np.asarray(np.arctan2(sine, cosine), np.float64)


def moves(poses: Float64) -> bool:
    """Whether the camera centres of `[N, 4, 4]` have any extent: without it a trajectory has no
    scale."""
    centres = poses[:, :3, 3]
    return bool(np.ptp(centres, axis=0).max() > 1e-12 * max(1.0, float(np.abs(centres).max())))


def path_length(poses: Float64) -> float:
    """Length of the way of the camera centres of `[N, 4, 4]`."""
    return float(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1).sum())
