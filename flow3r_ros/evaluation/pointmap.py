"""Point-map metrics: accuracy, completeness, Chamfer distance, normal consistency, MSE and f-score
with a stated threshold.

Accuracy is the distance from each estimated point to the nearest reference point, completeness the
other way round (Aanaes et al., IJCV 2016); the f-score is that of Knapitsch et al. (SIGGRAPH 2017).
Nearest neighbours need SciPy (extra `train`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import EvaluationError, install_extra
from flow3r_ros.geometry.lie import apply, umeyama
from flow3r_ros.types import Float64


def evaluate_clouds(
    est: Float64,
    ref: Float64,
    thresholds: Sequence[float] = (0.05,),
    est_normals: Float64 | None = None,
    ref_normals: Float64 | None = None,
) -> dict[str, Any]:
    """Compare two clouds in the same frame and unit.

    Args:
        est: `[N, 3]`.
        ref: `[M, 3]`.
        thresholds: distances of the f-score, in the unit of the clouds.
        est_normals: unit `[N, 3]`, with `ref_normals` for the normal consistency.
        ref_normals: unit `[M, 3]`.

    Returns:
        `accuracy`, `accuracy_median`, `completeness`, `completeness_median`, `chamfer` (mean of
        accuracy and completeness), `fscore@T` for each threshold, `normal_consistency` (mean |cos|
        both ways) where normals are given.

    Raises:
        EvaluationError: a cloud is empty or not finite, or SciPy is missing.
    """
    for name, cloud in (("estimate", est), ("reference", ref)):
        if cloud.ndim != 2 or cloud.shape[1] != 3 or not len(cloud) or not np.isfinite(cloud).all():
            raise EvaluationError(f"the {name} cloud of shape {cloud.shape} is empty or not finite")
    to_ref, ref_ids = _nearest(est, ref)
    to_est, est_ids = _nearest(ref, est)
    result: dict[str, Any] = {
        "accuracy": float(to_ref.mean()),
        "accuracy_median": float(np.median(to_ref)),
        "completeness": float(to_est.mean()),
        "completeness_median": float(np.median(to_est)),
        "chamfer": float((to_ref.mean() + to_est.mean()) / 2),
    }
    for threshold in thresholds:
        precision, recall = float(np.mean(to_ref < threshold)), float(np.mean(to_est < threshold))
        result[f"fscore@{threshold:g}"] = (
            2 * precision * recall / (precision + recall) if precision + recall else 0.0
        )
    if est_normals is not None and ref_normals is not None:
        forth = np.abs(np.sum(est_normals * ref_normals[ref_ids], axis=1))
        back = np.abs(np.sum(ref_normals * est_normals[est_ids], axis=1))
        result["normal_consistency"] = float((forth.mean() + back.mean()) / 2)
    return result


MAX_POINTS = 100_000
"""points of each cloud beyond which a random subset, always the same, is compared"""


def evaluate_point_map(
    est: Float64,
    ref: Float64,
    thresholds: Sequence[float] = (0.05,),
) -> dict[str, Any]:
    """Compare point maps pixel by pixel and as clouds.

    The estimate is aligned by Umeyama's Sim(3) over all corresponding valid pixels; no ICP follows,
    so that a wrong shape is not hidden.

    Args:
        est: `[N, h, w, 3]`, one world.
        ref: `[N, h, w, 3]` metres; not finite = unknown.
        thresholds: distances of the f-score, metres.

    Returns:
        the values of `evaluate_clouds` with normals, `mse` and `rmse` over corresponding pixels
        (metres squared, metres), `scale`, `pixels`.

    Raises:
        EvaluationError: the sizes differ, or fewer than three pixels correspond.
    """
    if est.shape != ref.shape or est.shape[-1] != 3 or est.ndim != 4:
        raise EvaluationError(
            f"a point map of shape {est.shape} cannot be compared with {ref.shape}"
        )
    both = np.isfinite(est).all(axis=-1) & np.isfinite(ref).all(axis=-1)
    if both.sum() < 3:
        raise EvaluationError(f"only {int(both.sum())} pixels have a point on both sides")
    S = umeyama(est[both], ref[both])
    aligned = apply(S, est.astype(np.float64))
    squared = np.sum((aligned[both] - ref[both]) ** 2, axis=-1)
    est_normals, ref_normals = (
        np.stack([normals_of(frame) for frame in points])
        for points in (aligned, ref.astype(np.float64))
    )
    shown = both & np.isfinite(est_normals).all(axis=-1) & np.isfinite(ref_normals).all(axis=-1)
    if not shown.any():
        shown, est_normals, ref_normals = both, np.zeros_like(aligned), np.zeros_like(aligned)
    picked = np.flatnonzero(shown)
    if len(picked) > MAX_POINTS:
        picked = np.random.default_rng(0).choice(picked, MAX_POINTS, replace=False)
    parts = [
        values.reshape(-1, 3)[picked]
        for values in (aligned, ref.astype(np.float64), est_normals, ref_normals)
    ]
    return {
        **evaluate_clouds(parts[0], parts[1], thresholds, parts[2], parts[3]),
        "mse": float(squared.mean()),
        "rmse": float(np.sqrt(squared.mean())),
        "scale": float(np.cbrt(np.linalg.det(S[:3, :3]))),
        "pixels": int(both.sum()),
    }


def normals_of(points: Float64) -> Float64:
    """Unit normals `[h, w, 3]` of a point map `[h, w, 3]` by central differences; NaN at the border
    and beside unknown points."""
    normals = np.full(points.shape, np.nan)
    across = points[1:-1, 2:] - points[1:-1, :-2]
    down = points[2:, 1:-1] - points[:-2, 1:-1]
    cross = np.cross(across, down)
    length = np.linalg.norm(cross, axis=-1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        normals[1:-1, 1:-1] = np.where(length > 0, cross / length, np.nan)
    return normals


def _nearest(points: Float64, targets: Float64) -> tuple[Float64, NDArray[np.int64]]:
    try:
        from scipy.spatial import cKDTree
    except ImportError as error:
        raise EvaluationError("cloud metrics need SciPy", install_extra("train")) from error
    distance, index = cKDTree(targets).query(points)
    return np.asarray(distance, np.float64), np.asarray(index, np.int64)
