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
UNIT, TURN, TILT = 0.18, 0.12, 0.06
"""1-sigma of what a keyframe is wrong by as a whole, a pixel of misfit: share of the way from it,
by its unit; share of the turn, by the lens; rad a median depth of way, by depths that lean"""
ALONE, SHARED = 0.3, 230.0
"""factor, and what a square pixel of misfit adds to it, on the covariance that the corners of a
frame give its pose: the same patches are off the same way in neighbouring frames, which cancels,
and what misfits share adds up along the way"""
LOCALISED_PX, LEAST_PX = 0.05, 0.008
"""pixels that neighbouring corners are off together where nothing is wrong (their patches overlap),
and the least misfit. What they share beyond the first is lens, rolling shutter, depth and what
moves, the same in many frames. Chosen with UNIT, TURN, TILT and SHARED so that NEES is about one
in the middle of 14 scenes of the factory, and within .3 and 3 on the bundled clip (neighbours share
.05 pixels), KITTI (.09), nerf_fox_50 (.14) and RedKitchen (.25)"""
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


def misfit_px(shared: float) -> float:
    """Pixels that corners are off by what they have in common, of the `shared` variance of
    neighbours, square pixels."""
    return float(np.sqrt(max(shared - LOCALISED_PX**2, LEAST_PX**2)))


def step_covariance(covariance: Float64, median_depth: float, misfit: float) -> Float64:
    """Covariance of a frame's step from what its corners, `misfit` pixels off, say of its pose;
    `median_depth` of the scene."""
    floor = FLOOR * np.array([median_depth**2] * 3 + [1.0] * 3)
    return np.asarray((ALONE + SHARED * misfit**2) * covariance + np.diag(floor))


class Drift:
    """What frames share that are tracked from one keyframe: its unit, its lens and its depths are a
    little wrong, so that the error of their poses grows with the way from it, not with its root."""

    def __init__(self) -> None:
        self._keyframe = -1
        self._T = np.eye(4)
        self._focal_sigma = 0.0

    def refocus(self, focal_sigma: float) -> None:
        """The 1-sigma of the logarithm of the focal length is another one now."""
        self._focal_sigma = focal_sigma

    def through(
        self, keyframe: int, T_ref_cam: Float64, misfit: float, median_depth: float
    ) -> tuple[Float64, Float64]:
        """Covariance `[6, 6]` of a step that ends at `T_ref_cam` `[4, 4]` in the keyframe of that
        id, and what comes on top for all steps from it together.

        Args:
            misfit: pixels that corners are off together (`misfit_px`).
            median_depth: of the scene.
        """
        start = self._T if keyframe == self._keyframe else np.eye(4)
        self._keyframe, self._T = keyframe, T_ref_cam
        unit, lean = UNIT * misfit, TILT * misfit / median_depth
        lens = float(np.hypot(TURN * misfit, self._focal_sigma))
        step, whole, before = (
            _of_motion(each, unit, lens, lean)
            for each in (invert(start) @ T_ref_cam, T_ref_cam, start)
        )
        return step, np.maximum(whole - before - step, 0.0)


def _of_motion(T: Float64, unit: float, lens: float, lean: float) -> Float64:
    way, turn = float(np.linalg.norm(T[:3, 3])), rotation_angle(T[:3, :3])
    return np.diag([(unit * way) ** 2] * 3 + [(lens * turn) ** 2 + (lean * way) ** 2] * 3)


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
