"""Relative pose of two views: several candidates, one judge.

Candidates are a multi-start two-view fit, the essential matrix and PnP from a depth map. All are
refined by the robust Sampson error; the lowest cost with points in front of both cameras wins.
Where the images show no parallax, translation comes from PnP and rotation from a rotation-only fit.
Measured in `docs/results.md`; OpenCV's iterative RANSAC with a guess flips by 180 degrees and is
never used.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flow3r_ros.geometry.candidates import (
    Candidate,
    judged,
    pnp_from_depth,
    refined_candidates,
)
from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.epipolar import (
    Matches,
    fit_epipolar,
    fit_rotation,
    inverse_depths,
    robust_cost,
    rotation_residual,
    sampson_residual,
    select_matches,
)
from flow3r_ros.geometry.lie import invert, rigid, rotation_angle
from flow3r_ros.geometry.reprojection import (
    RefinedPose,
    Target,
    make_target,
    refine_pose,
    sharpened,
)
from flow3r_ros.geometry.robust import weighted_median
from flow3r_ros.geometry.triangulation import ScaleRatio, moving_mask, scale_ratio, triangulate
from flow3r_ros.types import Camera, Float32, Float64, PoseSource

__all__ = [
    "PairPose",
    "RefinedPose",
    "Target",
    "hybrid_pose",
    "make_target",
    "moving_mask",
    "refine_pose",
    "sharpened",
    "triangulate",
]

MIN_PARALLAX_PX = 0.5
"""median parallax on the correspondence grid below which translation is not observable"""
_STATIONARY_PX = 0.25


@dataclass(frozen=True)
class PairPose:
    """Relative pose of two views and how much to trust it.

    `T` `[4, 4]` is the pose of camera b in camera a (maps points of b to a). Its translation is in
    the unit of `depth_a` when `scaled`, and of length 1 otherwise. `cost` robust Sampson rms in px;
    `inliers` weighted share within 1.5 px; `parallax_px` median displacement that rotation does not
    explain; `flow_px` median displacement; `scale` how the translation's length compares to the
    depth map (None = not compared); `points` matches used.
    """

    T: Float64
    source: PoseSource
    cost: float
    inliers: float
    parallax_px: float
    flow_px: float
    scaled: bool = False
    scale: ScaleRatio | None = None
    points: int = 0


def hybrid_pose(
    correspondence: Correspondence, camera: Camera, depth_a: Float32 | None = None
) -> PairPose:
    """Best relative pose of b in a.

    Args:
        correspondence: a -> b.
        camera: pinhole of the correspondence grid.
        depth_a: depth of a, any grid size (nan = unknown); gives the scale and the PnP candidate.

    With fewer than 30 matches the pose is identity, marked PREDICTED.
    """
    matches = select_matches(correspondence, camera)
    flow_px = weighted_median(
        np.linalg.norm(correspondence.flow[matches.rows, matches.columns], axis=1), matches.weight
    )
    if len(matches) < 30:
        infinite, source = float("inf"), PoseSource.PREDICTED
        return PairPose(np.eye(4), source, infinite, 0.0, 0.0, flow_px, points=len(matches))
    if flow_px < _STATIONARY_PX:
        return _describe(
            np.eye(4), PoseSource.STATIONARY, matches, flow_px, scaled=depth_a is not None
        )
    depth = None if depth_a is None else _depth_of(depth_a, correspondence, matches)
    R_far, _ = fit_rotation(np.eye(3), matches)
    pnp = None if depth is None else pnp_from_depth(depth, matches, R_far)
    best = min(
        refined_candidates(matches, R_far, pnp), key=lambda c: c.badness * _tie_break(c.R, R_far)
    )
    best = judged(
        best.source,
        matches,
        *(part[0] for part in fit_epipolar(best.R[None], best.t[None], matches, 12)),
    )
    if weighted_median(rotation_residual(best.R, matches), matches.weight) < MIN_PARALLAX_PX:
        return _without_parallax(matches, R_far, pnp, flow_px)
    ratio = None if depth is None else _scale(best, depth, matches)
    scale = ratio.scale if ratio is not None else _length(pnp)
    pose = invert(rigid(best.R, best.t * (scale or 1.0)))
    return _describe(pose, best.source, matches, flow_px, scaled=scale is not None, scale=ratio)


def _tie_break(R: Float64, prior: Float64) -> float:
    """Up to 10 % on the cost for 1 degree away from the prior: a plane alone allows two motions
    that fit almost equally well."""
    return 1.0 + 0.1 * min(1.0, rotation_angle(R @ prior.T) / float(np.radians(1.0)))


def _without_parallax(
    matches: Matches, R_far: Float64, pnp: Float64 | None, flow_px: float
) -> PairPose:
    """PnP where it agrees with the rotation-only fit; else that rotation without translation."""
    if pnp is not None and rotation_angle(pnp[:3, :3].T @ R_far) < np.radians(2.0):
        return _describe(invert(pnp), PoseSource.PNP, matches, flow_px, scaled=True)
    pose = invert(rigid(R_far, np.zeros(3)))
    return _describe(pose, PoseSource.TWO_VIEW, matches, flow_px, scaled=True)


def _scale(best: Candidate, depth: Float64, matches: Matches) -> ScaleRatio | None:
    """Known depth over triangulated depth, where more than 1 px of parallax and a small residual
    make the latter good."""
    d, parallax = inverse_depths(best.R, best.t, matches.rays_a, matches.rays_b)
    good = (
        (d > 0)
        & (parallax * matches.focal > 1.0)
        & (np.abs(sampson_residual(best.R, best.t, matches)) < 1.0)
    )
    weight = matches.weight * good * np.minimum(parallax * matches.focal, 10.0)
    return scale_ratio(depth, 1.0 / np.where(good, d, 1.0), weight)


def _describe(
    T: Float64,
    source: PoseSource,
    matches: Matches,
    flow_px: float,
    scaled: bool,
    scale: ScaleRatio | None = None,
) -> PairPose:
    T_b_a = invert(T)
    residual = sampson_residual(T_b_a[:3, :3], T_b_a[:3, 3], matches)
    inliers = float(
        np.sum(matches.weight * (np.abs(residual) < 1.5)) / max(float(matches.weight.sum()), 1e-9)
    )
    parallax = weighted_median(rotation_residual(T_b_a[:3, :3], matches), matches.weight)
    return PairPose(
        T,
        source,
        robust_cost(residual, matches.weight),
        inliers,
        parallax,
        flow_px,
        scaled,
        scale,
        len(matches),
    )


def _depth_of(depth_a: Float32, correspondence: Correspondence, matches: Matches) -> Float64:
    height, width = correspondence.covisibility.shape
    h, w = depth_a.shape
    rows, columns = (
        ((matches.rows + 0.5) * h / height).astype(int),
        ((matches.columns + 0.5) * w / width).astype(int),
    )
    return np.asarray(depth_a[rows, columns], dtype=np.float64)


def _length(T: Float64 | None) -> float | None:
    return None if T is None else float(np.linalg.norm(T[:3, 3]))
