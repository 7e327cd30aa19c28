"""Covariance that a filter can use: of the pose against the origin of `odom`, growing with the way.

A covariance `[6, 6]` here is of (translation, rotation) in the axes of the odometry world. Each
frame hands on what it does not know to the next one, together with the lever arm between them, and
adds what its corners leave open; time without a measurement adds more.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import hat, invert, rotation_angle
from flow3r_ros.types import LOST_VARIANCE, Float64

FLOOR = np.array([5e-5] * 3 + [3e-5] * 3) ** 2
"""smallest variances of a step: translation as a share of the median depth, rotation in rad"""
UNIT, TURN = 0.3, 0.1
"""1-sigma of what a keyframe is wrong by as a whole, a pixel of misfit: share of the way from it,
by its unit, and of the turn, by the lens"""
ALONE, SHARED = 0.5, 40.0
"""factor, and what a pixel of misfit adds to it, on the covariance that the corners of a frame
give its pose: the same patches are off the same way in neighbouring frames, which cancels, and what
misfits share adds up along the way"""
LOCALISED_PX, LEAST_PX = 0.12, 0.008
"""pixels that corners are off by themselves, and the least misfit. What residuals are beyond
the first is no noise of single corners but lens, rolling shutter and what moves, the same in many
frames. Chosen with UNIT, TURN and SHARED on the bundled clip, whose lens is perfect (residuals of
.12 pixels), KITTI (.22) and RedKitchen (.47)"""
UNSEEN_SPEED, UNSEEN_TURN = 0.5, 0.5
"""1-sigma of what a camera does within a second that nobody sees: median depths, and rad"""
NO_POSE_SHIFT, NO_POSE_TURN = 0.3, np.radians(10.0)
"""1-sigma, median depths and rad, beyond which a bridged pose is none: what counts as a lie"""


def in_world(covariance: Float64, rotation: Float64) -> Float64:
    """Covariance `[6, 6]` of a perturbation in a camera's axes, turned into world axes."""
    turn = np.kron(np.eye(2), rotation)
    return np.asarray(turn @ covariance @ turn.T)


def handed_on(covariance: Float64, way: Float64) -> Float64:
    """Covariance at a place `way` `[3]` (world axes) further on: rotation moves what is far."""
    lever = np.eye(6)
    lever[:3, 3:] = -hat(way)
    return np.asarray(lever @ covariance @ lever.T)


def beyond_noise(noise_px: float) -> float:
    """Pixels of residuals `noise_px` that the noise of single corners does not explain."""
    return max(noise_px - LOCALISED_PX, LEAST_PX)


def step_covariance(covariance: Float64, median_depth: float, misfit_px: float) -> Float64:
    """Covariance of a frame's step from what its corners, `misfit_px` off, say of its pose;
    `median_depth` of the scene."""
    floor = FLOOR * np.array([median_depth**2] * 3 + [1.0] * 3)
    return np.asarray((ALONE + SHARED * misfit_px) * covariance + np.diag(floor))


class Drift:
    """What frames share that are tracked from one keyframe: its unit and its lens are a little
    wrong, so that the error of their poses grows with the way from it, not with its root."""

    def __init__(self) -> None:
        self._keyframe = -1
        self._T = np.eye(4)

    def through(
        self, keyframe: int, T_ref_cam: Float64, misfit_px: float
    ) -> tuple[Float64, Float64]:
        """Covariance `[6, 6]` of a step that ends at `T_ref_cam` `[4, 4]` in the keyframe of that
        id, whose corners are `misfit_px` off, and what comes on top for all steps
        from it together."""
        start = self._T if keyframe == self._keyframe else np.eye(4)
        self._keyframe, self._T = keyframe, T_ref_cam
        step = misfit_px**2 * _of_motion(invert(start) @ T_ref_cam)
        whole = misfit_px**2 * (_of_motion(T_ref_cam) - _of_motion(start))
        return step, np.maximum(whole - step, 0.0)


def _of_motion(T: Float64) -> Float64:
    way, turn = float(np.linalg.norm(T[:3, 3])), rotation_angle(T[:3, :3])
    return np.diag([(UNIT * way) ** 2] * 3 + [(TURN * turn) ** 2] * 3)


def of_information(information: Float64) -> Float64:
    """Covariance `[6, 6]` of an information matrix."""
    return np.asarray(np.linalg.pinv(information, rcond=1e-12, hermitian=True))


def unseen(seconds: float, median_depth: float) -> Float64:
    """Covariance `[6, 6]` of what happens in a time that nobody sees: grows with its square."""
    sigma = np.array([UNSEEN_SPEED * median_depth] * 3 + [UNSEEN_TURN] * 3) * seconds
    return np.asarray(np.diag(sigma**2))


def bridgeable(seconds: float) -> bool:
    """Whether motion alone still tells where a camera is after a time that nobody saw."""
    return UNSEEN_SPEED * seconds <= NO_POSE_SHIFT and UNSEEN_TURN * seconds <= NO_POSE_TURN


def lost() -> Float64:
    """Covariance that says: nothing is known."""
    return np.asarray(np.eye(6) * LOST_VARIANCE)
