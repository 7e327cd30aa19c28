"""Is the confidence of a pixel the probability that its depth is right?

Confidence is gathered in bins beside the share of pixels that were right; the expected calibration
error is the mean distance between the two, weighted by pixels (Guo et al., ICML 2017, with equal
bins).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Float32, Float64

BINS = 20
WITHIN = 0.10
"""relative depth error up to which a pixel is right: what confidence is the probability of"""


@dataclass
class Calibration:
    """Pixels gathered frame by frame; memory does not grow.

    `pixels` int `[BINS]`, `claimed` and `right` float64 `[BINS]`: sums of confidence and of right
    pixels.
    """

    pixels: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS, np.int64))
    claimed: Float64 = field(default_factory=lambda: np.zeros(BINS))
    right: Float64 = field(default_factory=lambda: np.zeros(BINS))

    def add(self, confidence: Float32, depth: Float32, truth: Float32) -> None:
        """Add one frame: confidence in [0, 1], depth and true depth, all float `[h, w]`; not finite
        or not positive = no depth. The unit is free: the median ratio is made one."""
        known = np.isfinite(truth) & (truth > 0) & np.isfinite(depth) & (depth > 0)
        if not known.any():
            return
        sure = np.clip(np.nan_to_num(confidence[known]), 0.0, 1.0).astype(np.float64)
        ratio = depth[known].astype(np.float64) / truth[known]
        right = np.abs(ratio / np.median(ratio) - 1.0) < WITHIN
        bins = np.minimum((sure * BINS).astype(int), BINS - 1)
        self.pixels += np.bincount(bins, minlength=BINS)
        self.claimed += np.bincount(bins, weights=sure, minlength=BINS)
        self.right += np.bincount(bins, weights=right, minlength=BINS)

    def summary(self) -> dict[str, Any]:
        """`error` (expected calibration error), `claimed` and `right` (means over all pixels),
        `pixels`, and `curve`: (mean confidence, share right, share of the pixels) of each bin that
        is not empty. Without pixels only their count."""
        total = int(self.pixels.sum())
        if not total:
            return {"pixels": 0}
        full = self.pixels > 0
        weight = self.pixels[full] / total
        claimed, right = (
            self.claimed[full] / self.pixels[full],
            self.right[full] / self.pixels[full],
        )
        return {
            "error": float(weight @ np.abs(claimed - right)),
            "claimed": float(self.claimed.sum() / total),
            "right": float(self.right.sum() / total),
            "pixels": total,
            "curve": np.column_stack([claimed, right, weight]).round(4).tolist(),
        }
