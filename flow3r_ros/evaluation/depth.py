"""Depth metrics: AbsRel, delta < 1.25, RMSE and log10 (Eigen et al., NeurIPS 2014), after none,
median or scale-and-shift alignment.

Only pixels count where both sides have a depth; how much of the reference the estimate covers is
reported beside the errors, so that a sparse estimate cannot look good by leaving out what is hard.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Float32, Float64

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


def _errors(est: Float64, ref: Float64) -> tuple[float, float, float, float]:
    ratio = np.maximum(est / ref, ref / est)
    return (
        float(np.mean(np.abs(est - ref) / ref)),
        float(np.mean(ratio < 1.25)),
        float(np.sqrt(np.mean((est - ref) ** 2))),
        float(np.mean(np.abs(np.log10(est) - np.log10(ref)))),
    )
