"""Depth metrics: AbsRel, delta < 1.25, RMSE and log10 (Eigen et al., NeurIPS 2014), after none,
median or scale-and-shift alignment.

Only pixels count where both sides have a depth; how much of the reference the estimate covers is
reported beside the errors, so that a sparse estimate cannot look good by leaving out what is hard.
"""

from __future__ import annotations

from typing import Any, Literal

import cv2
import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Bool, Camera, Float32, Float64

DepthAlign = Literal["none", "median", "scale_shift"]
UNIT_RATIO = 50.0
"""ratio of the median depths beyond which unaligned depth is taken to be in another unit"""


def evaluate_depth(
    est: Float32,
    ref: Float32,
    align: DepthAlign = "median",
    per: Literal["frame", "clip"] = "frame",
    minimum: float = 1e-3,
    maximum: float = float("inf"),
) -> dict[str, Any]:
    """Compare depth maps.

    Args:
        est: float `[N, h, w]`; not finite or not positive = no depth.
        ref: float `[N, h, w]` metres; not finite or outside `minimum`..`maximum` = no depth.
        align: nothing; the ratio of the medians; or scale and shift by least squares.
        per: one alignment for each frame, or one for the whole clip.
        minimum: metres.
        maximum: metres.

    Returns:
        `abs_rel`, `delta_1.25` (share), `rmse` (metres), `log10`, each the mean over frames;
        `frames`, `frames_excluded` (no common pixel), `coverage` (share of the reference's pixels
        that have an estimate), `scale` (median over frames). Depths that a shift makes negative
        enter as `minimum`.

    Raises:
        EvaluationError: the sizes differ, nothing can be compared, or unaligned depth is in another
            unit.
    """
    if est.shape != ref.shape or est.ndim != 3:
        raise EvaluationError(
            f"depth of shape {est.shape} cannot be compared with {ref.shape}",
            "resample with nearest neighbours first",
        )
    known = np.isfinite(ref) & (ref >= minimum) & (ref <= maximum)
    common = known & np.isfinite(est) & (est > 0)
    usable = [i for i in range(len(ref)) if common[i].any()]
    if not usable:
        raise EvaluationError("no pixel has a depth on both sides")
    ratio = float(np.median(ref[common]) / np.median(est[common]))
    if align == "none" and not 1 / UNIT_RATIO < ratio < UNIT_RATIO:
        raise EvaluationError(
            f"the depths differ by a factor of {ratio:.3g}: another unit",
            "convert to metres, or align with median",
        )
    shared = fit_depth(est[common], ref[common], align) if per == "clip" else None
    rows, scales = [], []
    for i in usable:
        truth, guess = ref[i][common[i]].astype(np.float64), est[i][common[i]].astype(np.float64)
        scale, shift = shared or fit_depth(guess, truth, align)
        rows.append(_errors(np.maximum(scale * guess + shift, minimum), truth))
        scales.append(scale)
    means = np.mean(rows, axis=0)
    return {
        "abs_rel": float(means[0]),
        "delta_1.25": float(means[1]),
        "rmse": float(means[2]),
        "log10": float(means[3]),
        "frames": len(usable),
        "frames_excluded": len(ref) - len(usable),
        "coverage": float(common.sum() / max(known.sum(), 1)),
        "scale": float(np.median(scales)),
        "align": f"{align} per {per}",
    }


def fit_depth(
    est: Float64 | Float32, ref: Float64 | Float32, align: DepthAlign
) -> tuple[float, float]:
    """Scale and shift that bring `est` `[M]` to `ref` `[M]`."""
    if align == "none":
        return 1.0, 0.0
    if align == "median":
        return float(np.median(ref) / np.median(est)), 0.0
    guess, truth = est.astype(np.float64), ref.astype(np.float64)
    spread = float(np.var(guess))
    if spread < 1e-12 * float(np.mean(guess)) ** 2:
        return 1.0, float(np.mean(truth) - np.mean(guess))
    scale = float(np.mean((guess - guess.mean()) * (truth - truth.mean())) / spread)
    return scale, float(truth.mean() - scale * guess.mean())


def resample_depth(depth: Float32, source: Camera, target: Camera) -> Float32:
    """Depth `[h, w]` of one pinhole seen by another at the same place: nearest neighbours, NaN
    outside; no pixel is invented.

    Raises:
        EvaluationError: the depth map is not of the size its pinhole is for.
    """
    _check_size(depth, source)
    columns = (np.arange(target.width) - target.cx) / target.fx * source.fx + source.cx
    rows = (np.arange(target.height) - target.cy) / target.fy * source.fy + source.cy
    u, v = (grid.astype(np.float32) for grid in np.meshgrid(columns, rows))
    nan = float("nan")
    sampled = cv2.remap(
        depth.astype(np.float32),
        u,
        v,
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(nan, nan, nan, nan),
    )
    return np.asarray(sampled, np.float32)


def registered_depth(
    depth: Float32, source: Camera, target: Camera, offset: tuple[float, float, float]
) -> Float32:
    """Depth `[h, w]` of one pinhole as another one beside it sees it: every point is moved by
    `offset` (from the source's optical frame to the target's, same axes, unit of the depth) and
    falls on the nearest pixel; the nearest point wins, NaN where none falls.

    The target should have no more pixels than the source, or holes remain between points.

    Raises:
        EvaluationError: the depth map is not of the size its pinhole is for.
    """
    _check_size(depth, source)
    rows, columns = np.nonzero(valid_depth(depth))
    z = depth[rows, columns].astype(np.float64)
    x = (columns - source.cx) / source.fx * z + offset[0]
    y = (rows - source.cy) / source.fy * z + offset[1]
    z = z + offset[2]
    u = np.rint(x / z * target.fx + target.cx).astype(np.int64)
    v = np.rint(y / z * target.fy + target.cy).astype(np.int64)
    inside = (z > 0) & (u >= 0) & (v >= 0) & (u < target.width) & (v < target.height)
    far_first = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]
    seen = np.full((target.height, target.width), np.nan, np.float32)
    seen[v[far_first], u[far_first]] = z[far_first]
    return seen


def valid_depth(depth: Float32) -> Bool:
    """Where a depth map holds a depth."""
    return np.asarray(np.isfinite(depth) & (depth > 0))


def _check_size(depth: Float32, camera: Camera) -> None:
    if depth.shape != (camera.height, camera.width):
        size = f"{depth.shape[1]}x{depth.shape[0]}"
        raise EvaluationError(
            f"depth of {size} pixels has intrinsics for {camera.width}x{camera.height}",
            "give the depth camera's own",
        )


def _errors(est: Float64, ref: Float64) -> tuple[float, float, float, float]:
    ratio = np.maximum(est / ref, ref / est)
    return (
        float(np.mean(np.abs(est - ref) / ref)),
        float(np.mean(ratio < 1.25)),
        float(np.sqrt(np.mean((est - ref) ** 2))),
        float(np.mean(np.abs(np.log10(est) - np.log10(ref)))),
    )
