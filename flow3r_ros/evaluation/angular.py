"""The angular pose protocol of PoseDiffusion, DUSt3R, VGGT and pi3: RRA@t, RTA@t and AUC@30.

All unordered pairs of a sequence; relative world-to-camera poses; the angle of the relative
rotation, and the angle between translation directions folded to at most 90 degrees (their sign is
not counted); AUC over max(rotation, translation) with bins of one degree.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.motion import rotation_angle
from flow3r_ros.types import Bool, Float64

THRESHOLDS_DEG = (5.0, 15.0, 30.0)
"""degrees at which RRA and RTA are reported, as published"""


def angular_metrics(est: Float64, ref: Float64) -> dict[str, Any]:
    """Score camera-to-world poses `[N, 4, 4]` against a reference in the same order, in percent.

    Pairs whose reference translation is zero have no direction: they are left out of RTA (counted
    in `undefined_directions`) and enter AUC with their rotation alone. With every reference
    direction undefined, RTA and AUC are None.

    Raises:
        EvaluationError: fewer than two poses, or the shapes differ.
    """
    if est.shape != ref.shape or len(est) < 2:
        raise EvaluationError(
            f"angular metrics need two or more poses of both sides, got {est.shape} and {ref.shape}"
        )
    rotation, translation, defined = pair_errors(est, ref)
    result: dict[str, Any] = {"pairs": len(rotation), "undefined_directions": int(np.sum(~defined))}
    for threshold in THRESHOLDS_DEG:
        result[f"RRA@{threshold:g}"] = 100.0 * float(np.mean(rotation < threshold))
        result[f"RTA@{threshold:g}"] = (
            100.0 * float(np.mean(translation[defined] < threshold)) if defined.any() else None
        )
    worst = np.where(defined, np.maximum(rotation, translation), rotation)
    result["AUC@30"] = 100.0 * area_under_curve(worst, 30) if defined.any() else None
    return result


def pair_errors(est: Float64, ref: Float64) -> tuple[Float64, Float64, Bool]:
    """Rotation and folded direction errors in degrees, and whether the direction is defined, for
    every pair i < j."""
    first, second = np.triu_indices(len(est), k=1)
    est_step = invert(est[first]) @ est[second]
    ref_step = invert(ref[first]) @ ref[second]
    error = est_step[:, :3, :3].transpose(0, 2, 1) @ ref_step[:, :3, :3]
    rotation = np.degrees(rotation_angle(error))
    est_direction, ref_direction = est_step[:, :3, 3], ref_step[:, :3, 3]
    defined = np.linalg.norm(ref_direction, axis=1) > 1e-9
    sine = np.linalg.norm(np.cross(est_direction, ref_direction), axis=1)
    cosine = np.abs(np.sum(est_direction * ref_direction, axis=1))
    translation = np.degrees(np.arctan2(sine, cosine))
    still = np.linalg.norm(est_direction, axis=1) <= 1e-12
    translation[still] = 90.0
    return rotation, translation, defined


def area_under_curve(errors: Float64, limit: int) -> float:
    """Mean of the cumulative share of `errors` (degrees) below 1, 2, ..., `limit` degrees."""
    counts, _ = np.histogram(errors, bins=np.arange(limit + 1))
    return float(np.mean(np.cumsum(counts) / len(errors)))
