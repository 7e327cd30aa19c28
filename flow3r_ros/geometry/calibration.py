"""Focal length of an uncalibrated camera: from its own motion, or from a predicted point map.

For a wrong focal length no pair of motions explains the flow: the robust Sampson cost of the best
two-view fit, summed over several pairs, has its minimum at the true one. Motions without rotation
or depth variation say nothing, the curve is flat, and that is reported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flow3r_ros.errors import CameraError
from flow3r_ros.geometry.camera import default_camera, scaled
from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.epipolar import (
    Matches,
    fit_epipolar,
    fit_rotation,
    select_matches,
    translation_given_rotation,
)
from flow3r_ros.types import Float32, Float64

_RANGE = (0.5, 2.5)
"""swept focal lengths, as shares of the longer image side"""
_NODES = 14


@dataclass(frozen=True)
class FocalEstimate:
    """`focal` in pixels of the image asked for; `confidence` 0..1; `observable` False when the
    guess of 0.9 of the longer side stands."""

    focal: float
    confidence: float
    observable: bool


def estimate_focal(
    correspondences: Sequence[Correspondence], width: int, height: int
) -> FocalEstimate:
    """Focal length of `width` x `height` images, square pixels, principal point at the centre.

    `correspondences` are a handful of pairs with clear motion (any grid size). Falls back to 0.9 of
    the longer side, flagged, when they do not determine it. About 60 ms a pair.
    """
    ratios = np.geomspace(*_RANGE, _NODES)
    curves = [
        curve
        for c in correspondences
        if (curve := _cost_curve(c, width, height, ratios)) is not None
    ]
    fallback = FocalEstimate(0.9 * max(width, height), 0.0, False)
    if not curves:
        return fallback
    stack = np.stack(curves)
    total = np.sum(np.minimum(stack / stack.min(axis=1, keepdims=True) - 1.0, 0.5), axis=0)
    best = int(np.argmin(total))
    if best in (0, _NODES - 1):
        return fallback
    rise = 0.5 * (total[max(best - 3, 0)] + total[min(best + 3, _NODES - 1)]) - total[best]
    confidence = float(np.clip(rise / (0.15 * np.sqrt(len(curves))), 0.0, 1.0))
    if confidence < 0.2:
        return fallback
    left, centre, right = total[best - 1 : best + 2]
    shift = 0.5 * (left - right) / max(left - 2.0 * centre + right, 1e-12)
    step = np.log(ratios[1] / ratios[0])
    ratio = ratios[best] * np.exp(np.clip(shift, -0.5, 0.5) * step)
    return FocalEstimate(float(ratio * max(width, height)), confidence, True)


def _cost_curve(
    correspondence: Correspondence, width: int, height: int, ratios: Float64
) -> Float64 | None:
    """Best two-view cost in px for each focal length; None for a pair with too few matches or
    hardly any motion."""
    h, w = correspondence.covisibility.shape
    unit = scaled(default_camera(width, height, float(max(width, height))), w, h)
    matches = select_matches(correspondence, unit, 600)
    motion = matches.focal * np.linalg.norm(matches.rays_a - matches.rays_b, axis=1)
    if len(matches) < 60 or float(np.median(motion)) < 2.0:
        return None
    views = [_with_focal(matches, float(ratio)) for ratio in ratios]
    fits = [_fit_anew(view) for view in views]
    for order in (range(1, len(fits)), range(len(fits) - 2, -1, -1)):
        towards = 1 if order.step < 0 else -1
        for index in order:
            R, t, _ = fits[index + towards]
            R_all, t_all, cost = fit_epipolar(R[None], t[None], views[index], 5)
            if cost[0] < fits[index][2]:
                fits[index] = R_all[0], t_all[0], float(cost[0])
    return np.array([cost for _, _, cost in fits]) + 0.02


def _fit_anew(matches: Matches) -> tuple[Float64, Float64, float]:
    """Two-view fit without neighbours: the linear translation and straight ahead as starts."""
    R, _ = fit_rotation(np.eye(3), matches, 4)
    starts_t = np.stack([translation_given_rotation(R, matches), np.array([0.0, 0.0, 1.0])])
    R_all, t_all, _ = fit_epipolar(np.stack([R, R]), starts_t, matches, 5, 1.0)
    R_all, t_all, cost = fit_epipolar(R_all, t_all, matches, 4)
    winner = int(np.argmin(cost))
    return R_all[winner], t_all[winner], float(cost[winner])


def _with_focal(matches: Matches, ratio: float) -> Matches:
    """The same pixels as rays of a camera whose focal length is `ratio` times as long."""
    shrink = np.array([1.0 / ratio, 1.0 / ratio, 1.0])
    return Matches(
        matches.rays_a * shrink,
        matches.rays_b * shrink,
        matches.weight,
        matches.rows,
        matches.columns,
        matches.focal * ratio,
    )


def focal_from_points(local_points: Float32, confidence: Float32) -> tuple[float, float]:
    """Focal lengths (fx, fy) in pixels of the grid that explain a local point map, principal point
    at the centre.

    Robust least squares of `u - cx = fx x/z` and its twin for y (Cauchy reweighting from the median
    ratio). `local_points` `[h, w, 3]` in the optical frame, `confidence` `[h, w]` in [0, 1]. Raises
    CameraError when fewer than 16 points are in front of the camera.
    """
    height, width = confidence.shape
    z = local_points[..., 2].astype(np.float64)
    usable = np.isfinite(local_points).all(axis=-1) & (z > 1e-9) & (confidence > 0)
    if int(usable.sum()) < 16:
        raise CameraError(
            "the point map has too few points in front of the camera to recover a focal length"
        )
    columns, rows = np.meshgrid(
        np.arange(width) - (width - 1) / 2.0, np.arange(height) - (height - 1) / 2.0
    )
    weight = confidence[usable].astype(np.float64)
    focals = []
    for pixel, axis in ((columns[usable], 0), (rows[usable], 1)):
        focals.append(_robust_slope(local_points[..., axis][usable] / z[usable], pixel, weight))
    return focals[0], focals[1]


def _robust_slope(x: Float64, y: Float64, weight: Float64) -> float:
    """Slope of `y = slope x` through the origin, Cauchy-reweighted."""
    far = (np.abs(x) > 1e-6) & (np.abs(y) > 0.25 * np.abs(y).max())
    slope = float(np.median(y[far] / x[far])) if far.any() else 1.0
    for _ in range(15):
        residual = y - slope * x
        spread = 1.4826 * float(np.median(np.abs(residual))) + 1e-9
        w = weight / (1.0 + (residual / (2.0 * spread)) ** 2)
        slope = float(np.sum(w * x * y) / max(np.sum(w * x * x), 1e-12))
    if not (math.isfinite(slope) and slope > 0):
        raise CameraError("the point map does not look like a pinhole view", "give the intrinsics")
    return slope
