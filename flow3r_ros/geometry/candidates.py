"""Candidates for the relative pose of two views, each refined by the robust Sampson error.

Starts without any prior and from a depth map (PnP) are refined together in one batch. Only where
none of them fits well are regions of the image left out in turn (a moving object), and the
essential matrix is asked. Poses are `T_b_a` here.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.epipolar import (
    SHARP_PX,
    WIDE_PX,
    Matches,
    fit_epipolar,
    inverse_depths,
    translation_given_rotation,
)
from flow3r_ros.geometry.lie import invert, rigid
from flow3r_ros.geometry.reprojection import Target, refine_pose
from flow3r_ros.types import Camera, Float64, PoseSource

MIN_FRONT = 0.75
"""share of points with parallax that must lie in front of both cameras"""
_GOOD_PX, _POOR_PX = 0.15, 0.27
"""sharp costs in px above which the fit is repeated without one region, and the essential matrix is
asked as well"""


@dataclass(frozen=True)
class Candidate:
    """Rotation `[3, 3]`, unit translation `[3]`, sharp robust cost in px, where it started, and the
    share of points in front."""

    R: Float64
    t: Float64
    cost: float
    source: PoseSource
    front: float

    @property
    def badness(self) -> float:
        """The cost, tripled when too many points lie behind a camera."""
        return self.cost if self.front >= MIN_FRONT else 3.0 * self.cost


def refined_candidates(matches: Matches, R_far: Float64, pnp: Float64 | None) -> list[Candidate]:
    """The three best distinct motions, refined on every match; the essential matrix joins only when
    nothing cheap fits well."""
    few = matches.thinned(350)
    starts = [(R, t, PoseSource.TWO_VIEW) for R, t in _two_view_starts(few, R_far)]
    if pnp is not None and np.linalg.norm(pnp[:3, 3]) > 1e-9:
        starts.append((pnp[:3, :3], pnp[:3, 3], PoseSource.PNP))
    rough = _roughly(starts, few)
    if rough[0].badness > _GOOD_PX:
        rough = sorted([*rough, *_without_one_region(rough[0], few)], key=_by_badness)
    if rough[0].badness > _POOR_PX:
        essential = _essential(matches.thinned(600))
        if essential is not None:
            rough = sorted(
                [*rough, *_roughly([(*essential, PoseSource.ESSENTIAL)], few)], key=_by_badness
            )
    best = _distinct(rough)[:3]
    R, t, cost = fit_epipolar(
        np.stack([c.R for c in best]), np.stack([c.t for c in best]), matches, 5
    )
    return [judged(c.source, matches, *fitted) for c, *fitted in zip(best, R, t, cost, strict=True)]


def _without_one_region(start: Candidate, matches: Matches) -> list[Candidate]:
    """The start refined on the left, right, upper, lower half or the outer ring alone, then on
    everything: an object that moves somewhere in the image no longer holds the fit in a
    compromise."""
    x, y = (matches.rays_a[:, :2] - np.median(matches.rays_a[:, :2], axis=0)).T
    outside = (np.abs(x) > 0.5 * np.abs(x).max()) | (np.abs(y) > 0.5 * np.abs(y).max())
    regions = np.stack([x < 0, x > 0, y < 0, y > 0, outside], axis=1)
    R, t = np.repeat(start.R[None], 5, axis=0), np.repeat(start.t[None], 5, axis=0)
    R, t, _ = fit_epipolar(R, t, matches, 4, WIDE_PX, matches.weight[:, None] * regions)
    R, t, _ = fit_epipolar(R, t, matches, 4, 0.5 * WIDE_PX, matches.weight[:, None] * regions)
    return _roughly(
        [(*pose, PoseSource.TWO_VIEW) for pose in zip(R, t, strict=True)], matches, wide_steps=0
    )


def _distinct(candidates: list[Candidate]) -> list[Candidate]:
    """The candidates without those that repeat a better one (0.1 degrees, 3 degrees of
    direction)."""
    kept: list[Candidate] = []
    for candidate in candidates:
        if not any(
            np.trace(c.R.T @ candidate.R) > 3.0 - 3e-6 and c.t @ candidate.t > 0.9986 for c in kept
        ):
            kept.append(candidate)
    return kept


def _roughly(
    starts: list[tuple[Float64, Float64, PoseSource]], matches: Matches, wide_steps: int = 6
) -> list[Candidate]:
    """Starts refined with a wide, then a sharp loss; the best one first."""
    R, t = np.stack([start[0] for start in starts]), np.stack([start[1] for start in starts])
    if wide_steps:
        R, t, _ = fit_epipolar(R, t, matches, wide_steps, WIDE_PX)
    R, t, cost = fit_epipolar(R, t, matches, 4, SHARP_PX)
    return sorted(
        (
            judged(start[2], matches, *fitted)
            for start, *fitted in zip(starts, R, t, cost, strict=True)
        ),
        key=_by_badness,
    )


def _by_badness(candidate: Candidate) -> float:
    return candidate.badness


def judged(source: PoseSource, matches: Matches, R: Float64, t: Float64, cost: float) -> Candidate:
    """The candidate with the sign of t that puts more points in front."""
    front = _front_share(R, t, matches)
    if front < 0.5:
        t, front = -t, _front_share(R, -t, matches)
    return Candidate(R, t, float(cost), source, front)


def _two_view_starts(matches: Matches, R_far: Float64) -> list[tuple[Float64, Float64]]:
    """Starts without any prior: motion before a wall (robust PnP on constant depth), the linear
    translation, straight ahead."""
    ones = np.ones(len(matches))
    target = Target(
        np.eye(4), matches.rays_a, ones, 0.3 * ones, matches.rays_b[:, :2], matches.weight
    )
    wall = invert(
        refine_pose(
            invert(rigid(R_far, np.zeros(3))), [target], _camera(matches), iterations=6, robust=3.0
        ).T_world_cam
    )
    return [
        (
            wall[:3, :3],
            wall[:3, 3] if np.linalg.norm(wall[:3, 3]) > 1e-6 else np.array([1.0, 0.0, 0.0]),
        ),
        (R_far, translation_given_rotation(R_far, matches)),
        (R_far, np.array([0.0, 0.0, -1.0])),
    ]


def _camera(matches: Matches) -> Camera:
    return Camera(1, 1, matches.focal, matches.focal, 0.0, 0.0)


def pnp_from_depth(depth: Float64, matches: Matches, R_far: Float64) -> Float64 | None:
    """`T_b_a` from depth, started from the rotation and, where that ends badly, from EPnP RANSAC;
    None where depth is too rare."""
    known = np.isfinite(depth) & (depth > 0)
    if int(known.sum()) < 30:
        return None
    index = np.flatnonzero(known)
    index = index[:: max(1, len(index) // 350)]
    d, rays_a, rays_b = depth[index], matches.rays_a[index], matches.rays_b[index, :2]
    target = Target(np.eye(4), rays_a, 1.0 / d, 0.1 / d, rays_b, matches.weight[index])
    camera = _camera(matches)
    refined = refine_pose(invert(rigid(R_far, np.zeros(3))), [target], camera, iterations=8)
    if refined.cost > 1.5:
        start = _epnp(rays_a * d[:, None], np.ascontiguousarray(rays_b), 3.0 / matches.focal)
        if start is not None:
            refined = min(
                refined,
                refine_pose(invert(start), [target], camera, iterations=8),
                key=lambda pose: pose.objective,
            )
    return invert(refined.T_world_cam)


def _epnp(points: Float64, rays: Float64, error: float) -> Float64 | None:
    """EPnP in RANSAC without any initial guess, deterministic; None for degenerate points."""
    cv2.setRNGSeed(0)
    try:
        found, rotation, translation, _ = cv2.solvePnPRansac(
            points,
            rays,
            np.eye(3),
            None,
            iterationsCount=100,
            reprojectionError=error,
            confidence=0.99,
            flags=cv2.SOLVEPNP_EPNP,
        )
    except cv2.error:
        return None
    if not (found and np.isfinite(translation).all()):
        return None
    return rigid(cv2.Rodrigues(rotation)[0], np.asarray(translation).ravel())


def _essential(matches: Matches) -> tuple[Float64, Float64] | None:
    a, b = np.ascontiguousarray(matches.rays_a[:, :2]), np.ascontiguousarray(matches.rays_b[:, :2])
    try:
        E, mask = cv2.findEssentialMat(
            a, b, np.eye(3), cv2.USAC_MAGSAC, 0.999, 1.0 / matches.focal, 300
        )
        if E is None or E.shape != (3, 3):
            return None
        _, R, t, _ = cv2.recoverPose(E, a, b, np.eye(3), mask=mask)
    except cv2.error:
        return None
    if not (np.isfinite(R).all() and np.isfinite(t).all()):
        return None
    return np.asarray(R, dtype=np.float64), np.asarray(t, dtype=np.float64).ravel()


def _front_share(R: Float64, t: Float64, matches: Matches) -> float:
    """Weighted share, among matches with more than 1 px of parallax, of points in front of both
    cameras; 1 without such matches."""
    d, parallax = inverse_depths(R, t, matches.rays_a, matches.rays_b)
    z = matches.rays_a @ R[2] + d * t[2]
    weight = matches.weight * (parallax * matches.focal > 1.0)
    total = float(weight.sum())
    return float(np.sum(weight * ((d > 0) & (z > 0))) / total) if total > 5.0 else 1.0
