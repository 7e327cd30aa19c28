"""Optical-flow metrics: end-point error and the share of pixels below 1, 3 and 5 pixels, on
covisible pixels only."""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Bool, Float32


def evaluate_flow(est: Float32, ref: Float32, covisible: Bool | None = None) -> dict[str, Any]:
    """Compare displacement fields.

    Args:
        est: float `[..., h, w, 2]` pixels.
        ref: float `[..., h, w, 2]` pixels; not finite = unknown.
        covisible: bool `[..., h, w]`, where the comparison counts; None = wherever the reference is
            finite.

    Returns:
        `epe` (mean, pixels), `epe_median`, `below_1px`, `below_3px`, `below_5px` (shares),
        `pixels`, `missing` (covisible pixels the estimate has no value for; they count as wrong in
        the shares and are left out of the means).

    Raises:
        EvaluationError: the sizes differ, or no pixel is left.
    """
    if (
        est.shape != ref.shape
        or est.shape[-1] != 2
        or (covisible is not None and covisible.shape != ref.shape[:-1])
    ):
        raise EvaluationError(f"flow of shape {est.shape} cannot be compared with {ref.shape}")
    known = np.isfinite(ref).all(axis=-1)
    counted = known if covisible is None else known & covisible
    if not counted.any():
        raise EvaluationError("no pixel is covisible")
    error = np.linalg.norm(
        est[counted].astype(np.float64) - ref[counted].astype(np.float64), axis=-1
    )
    present = np.isfinite(error)
    if not present.any():
        raise EvaluationError("the estimated flow is nowhere finite")
    return {
        "epe": float(error[present].mean()),
        "epe_median": float(np.median(error[present])),
        **{f"below_{limit}px": float(np.mean(error < limit)) for limit in (1, 3, 5)},
        "pixels": int(counted.sum()),
        "missing": int((~present).sum()),
    }
