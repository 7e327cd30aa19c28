"""Join a window to the odometry: one robust Sim(3) from the frames both know, found by frame id.

The three parts are fitted from what observes each best, so that nothing degenerates when the camera
stands still, only turns, or moves on a line: the scale from the depth of the shared frames
(thousands of pixels, iteratively reweighted), the rotation from the orientation of the shared
cameras, the translation from their centres. A fit on camera centres alone (Umeyama 1991) would be
free to turn the world in all three cases. The points then judge the result: inlier share and
residual, relative to depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flow3r_ros.config import EngineSettings
from flow3r_ros.geometry.lie import apply, average_rotations, sim3
from flow3r_ros.types import Float32, Float64, Prediction, Seam

SAMPLES = 4000
"""pixels per shared frame that scale and judgement are computed from"""
INLIER_TOLERANCE = 0.15
"""a point belongs to the seam when its two positions differ by less than this share of its depth"""


@dataclass(frozen=True)
class Known:
    """What the odometry knows of one shared frame: `pose` float64 `[4, 4]` camera-to-world; `depth`
    float32 `[h, w]`, NaN = unknown, on the grid of the prediction, in odometry units; `weight` how
    much its pose counts."""

    pose: Float64
    depth: Float32
    weight: float = 1.0


def fit_seam(prediction: Prediction, known: Mapping[int, Known], settings: EngineSettings) -> Seam:
    """Fit and judge the Sim(3) from window to odometry over the frames that `prediction` and
    `known` share.

    Returns a refused seam (identity, `accepted` False, with its reason) when nothing is shared, the
    prediction is not finite, or the inlier share or residual misses the limits in `settings`.
    """
    shared = [(index, known[id_]) for index, id_ in enumerate(prediction.frame_ids) if id_ in known]
    if not shared:
        return _refused(np.eye(4), 1.0, 0.0, np.inf, "no shared frames")
    if not np.isfinite(prediction.poses).all() or not all(
        _is_rotation(prediction.poses[index, :3, :3]) for index, _ in shared
    ):
        return _refused(np.eye(4), 1.0, 0.0, np.inf, "predicted poses are not rigid")
    step = max(prediction.confidence[0].size // SAMPLES, 1) | 1
    scale = robust_depth_scale(
        np.concatenate(
            [prediction.local_points[index, :, :, 2].ravel()[::step] for index, _ in shared]
        ),
        np.concatenate([view.depth.ravel()[::step] for _, view in shared]),
        np.concatenate([prediction.confidence[index].ravel()[::step] for index, _ in shared]),
    )
    if scale is None:
        return _refused(np.eye(4), 1.0, 0.0, np.inf, "too few valid depths in shared frames")
    rotation = average_rotations(
        np.stack([view.pose[:3, :3] @ prediction.poses[index, :3, :3].T for index, view in shared]),
        np.array([view.weight for _, view in shared]),
    )
    offsets = np.stack(
        [
            view.pose[:3, 3] - scale * (rotation @ prediction.poses[index, :3, 3])
            for index, view in shared
        ]
    )
    translation = np.average(offsets, axis=0, weights=[view.weight for _, view in shared])
    transform = sim3(scale, rotation, translation)
    inliers, residual = _judge(prediction, shared, transform, step)
    if inliers < settings.seam_min_inliers:
        return _refused(
            transform,
            scale,
            inliers,
            residual,
            f"inlier share {inliers:.2f} below {settings.seam_min_inliers:.2f}",
        )
    if residual > settings.seam_max_residual:
        return _refused(
            transform,
            scale,
            inliers,
            residual,
            f"residual {residual:.3f} above {settings.seam_max_residual:.3f}",
        )
    return Seam(transform, scale, inliers, residual, accepted=True)


def robust_depth_scale(source: Float32, target: Float32, confidence: Float32) -> float | None:
    """Factor that takes `source` depths to `target` depths, robust to more than 30 % wrong pixels.

    Iteratively reweighted mean of log ratios (Geman-McClure) started at the median; exact when the
    inliers are. Returns None with fewer than 30 valid pixels.
    """
    valid = (
        np.isfinite(source)
        & np.isfinite(target)
        & np.isfinite(confidence)
        & (source > 0)
        & (target > 0)
        & (confidence > 0)
    )
    if np.count_nonzero(valid) < 30:
        return None
    ratio = np.log(target[valid].astype(np.float64)) - np.log(source[valid].astype(np.float64))
    weight = confidence[valid].astype(np.float64)
    centre = float(np.median(ratio))
    for _ in range(10):
        error = ratio - centre
        spread = 1.4826 * float(np.median(np.abs(error))) + 1e-7
        robust = weight / (1.0 + (error / (2.0 * spread)) ** 2) ** 2
        centre += float(np.sum(robust * error) / np.sum(robust))
    return float(np.exp(centre))


def to_odometry(pose: Float64, seam: Seam) -> Float64:
    """Camera-to-world pose `[4, 4]` of a window frame in odometry units: rigid, the seam's scale
    only moves the centre."""
    rigid = np.eye(4)
    rigid[:3, :3] = seam.sim3[:3, :3] @ pose[:3, :3] / seam.scale
    rigid[:3, 3] = apply(seam.sim3, pose[:3, 3])
    return rigid


def _judge(
    prediction: Prediction, shared: list[tuple[int, Known]], transform: Float64, step: int
) -> tuple[float, float]:
    """Inlier share and median residual relative to depth of the shared frames' points under
    `transform`."""
    errors, weights = [], []
    for index, view in shared:
        points = prediction.local_points[index].reshape(-1, 3)[::step].astype(np.float64)
        depth = view.depth.ravel()[::step].astype(np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            expected = apply(view.pose, points * (depth / points[:, 2])[:, None])
            error = (
                np.linalg.norm(
                    apply(transform @ prediction.poses[index], points) - expected, axis=-1
                )
                / depth
            )
        valid = np.isfinite(depth) & (depth > 0)
        errors.append(np.where(np.isfinite(error) & (points[:, 2] > 0), error, np.inf)[valid])
        weights.append(prediction.confidence[index].ravel()[::step][valid])
    error, weight = (
        np.concatenate(errors),
        np.nan_to_num(np.concatenate(weights).astype(np.float64)),
    )
    if weight.sum() <= 0:
        return 0.0, np.inf
    inliers = float(weight[error < INLIER_TOLERANCE].sum() / weight.sum())
    return inliers, float(np.median(error))


def _is_rotation(matrix: Float64) -> bool:
    return bool(np.allclose(matrix @ matrix.T, np.eye(3), atol=1e-2) and np.linalg.det(matrix) > 0)


def _refused(
    transform: Float64, scale: float, inliers: float, residual: float, reason: str
) -> Seam:
    return Seam(transform, scale, inliers, residual, accepted=False, reason=reason)
