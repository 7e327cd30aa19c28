"""The pose of a frame from the corners of a keyframe: where they are seen, and what those that are
held back say of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flow3r_ros.geometry.camera_pose import (
    PoseFit,
    PosePrior,
    fit_camera_pose,
    judge_camera_pose,
    project_points,
)
from flow3r_ros.odometry.corners import Reference, Tracked
from flow3r_ros.odometry.patches import WINDOW, find_patches, plane_homography
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64

FOLLOWED = 2.0
"""sigmas of a corner followed from the frame before, over those of one found by the keyframe's
patch"""
JUDGED_PX = 0.4
"""pixels: least 1-sigma that corners are judged with: a patch that changes its look is found a
little beside its place, which is no disagreement"""
AGREED = 4.0
"""sigmas from the pose within which a corner was seen where it belongs"""
COARSE_PX = 1.0
"""pixels: 1-sigma with which a search for a pose begins"""
MIN_CORNERS = 12
"""corners without which there is no pose"""
SURE, ENOUGH_SURE = 0.15, 50
"""relative sigma of inverse depth that parallax has shown; corners like that which are enough for a
pose"""
CELLS, MIN_PAIRS = 12, 20
"""cells in a row of the picture: corners of one are neighbours; pairs of them that say what they
share"""
EXPLAINED = 0.65
"""share of the corners that a first pose must explain; below it they are followed back as well, and
other starts are tried: the essential matrix needs no depth"""


def judged_px(sigma_px: float) -> float:
    """1-sigma of a corner's position that poses are judged with, of that they are found with."""
    return max(sigma_px, JUDGED_PX)


def sure_ones(reference: Reference, usable: Bool) -> tuple[Bool, bool]:
    """The usable corners whose depth parallax has shown, and whether they are enough; else all of
    them: guessed depths agree with each other on wrong motions."""
    sure = usable & (reference.points.sigma < SURE * reference.points.inverse)
    enough = int(np.count_nonzero(sure)) >= ENOUGH_SURE
    return (sure if enough else usable), enough


def rough_pose(
    reference: Reference,
    guess: Float32,
    followed: Bool,
    starts: Sequence[Float64],
    view: View,
    sigma_px: float,
    prior: PosePrior | None = None,
) -> tuple[Float64, bool]:
    """First pose from the followed corners, best over several starts; whether it explains them."""
    used, proven = sure_ones(reference, followed & ~reference.held_back)
    if np.count_nonzero(used) < MIN_CORNERS:
        return starts[0], False
    points, observed, lens = reference.points.only(used), view.straightened(guess[used]), view.lens
    if not proven:
        starts = [
            fit_camera_pose(points, observed, lens, each, COARSE_PX, 4, prior).T for each in starts
        ]
    fits: list[PoseFit] = []
    for each in starts:
        fits.append(fit_camera_pose(points, observed, lens, each, FOLLOWED * sigma_px, 6, prior))
        if proven and fits[-1].inliers > EXPLAINED:  # proven depths agree on one motion alone
            break
    fit = min(fits, key=lambda each: each.cost)
    return (fit.T, True) if fit.inliers > EXPLAINED else (starts[0], False)


def search(
    reference: Reference, view: View, T_ref_cam: Float64, target: Float32, levels: int
) -> tuple[Float32, Bool]:
    """Corners to sub-pixel from the keyframe's patches as seen from `T_ref_cam`."""
    inverse = float(np.median(reference.points.inverse)) if len(reference.ids) else 0.0
    homography = plane_homography(T_ref_cam, inverse, view.lens)
    pixels, found = find_patches(
        reference.view.tracking, view.tracking, homography, reference.pixels, target, levels
    )
    return pixels, found & view.shows(pixels)


def posed(
    reference: Reference,
    pixels: Float32,
    found: Bool,
    rough: Float64,
    view: View,
    sigma_px: float,
    prior: PosePrior | None = None,
) -> Tracked:
    """Pose from the corners that are not held back, and what those that are say of it."""
    used, _ = sure_ones(reference, found & ~reference.held_back)
    lens, observed = view.lens, view.straightened(pixels)
    fit, T, shared = None, rough, float("nan")
    if np.count_nonzero(used) >= MIN_CORNERS:
        fit = fit_camera_pose(
            reference.points.only(used), observed[used], lens, rough, sigma_px, 8, prior, near=True
        )
        T = fit.T
        near, across = near_residuals(fit, sigma_px)
        shared = shared_variance(observed[used][near], across, lens.width / CELLS)
    belongs = project_points(reference.points, T, lens)
    with np.errstate(invalid="ignore"):
        edge = np.array([lens.width, lens.height]) - WINDOW / 2.0
        inside = np.all((belongs > WINDOW / 2.0) & (belongs < edge), axis=1)
    distance = judge_camera_pose(reference.points, observed, lens, T, judged_px(sigma_px))
    agreed = found & (distance < AGREED)
    asked = inside & reference.held_back
    where = np.where(np.isfinite(belongs), view.bent(belongs), pixels)
    where[agreed] = pixels[agreed]
    return Tracked(
        ids=reference.ids,
        T_ref_cam=T,
        fit=fit,
        agreed=agreed,
        pixels=where.astype(np.float32),
        judged=distance[asked & found],
        asked=int(np.count_nonzero(asked)),
        expected=int(np.count_nonzero(inside)),
        shared=shared,
    )


def near_residuals(fit: PoseFit, sigma_px: float) -> tuple[Bool, Float64]:
    """Which corners a pose that was found with `sigma_px` agrees with, bool `[N]`, and how far
    these `[M]` lie across their epipolar lines, pixels: there, depth does not count."""
    near = fit.distance < AGREED * judged_px(sigma_px) / sigma_px
    return near, fit.whitened[near, 1] * sigma_px


def shared_variance(pixels: Float64, residuals: Float64, cell: float) -> float:
    """What residuals `[N]` of neighbours at `pixels` `[N, 2]` have in common: the mean product of
    two in one cell of `cell` pixels, not below zero; NaN with fewer than MIN_PAIRS pairs. Noise of
    single corners averages out of it, what a lens, a rolling shutter or a wrong depth bends does
    not."""
    if not len(residuals):
        return float("nan")
    columns, rows = (pixels // cell).astype(np.int64).T
    _, of = np.unique(columns + 10_000 * rows, return_inverse=True)
    count = np.bincount(of)
    pairs = int(np.sum(count * (count - 1)))
    if pairs < 2 * MIN_PAIRS:
        return float("nan")
    sums, squares = np.bincount(of, residuals), float(np.sum(residuals**2))
    return max((float(np.sum(sums**2)) - squares) / pairs, 0.0)
