"""Statistics that outliers hardly move."""

from __future__ import annotations

import numpy as np

from flow3r_ros.types import Float32, Float64


def weighted_median(values: Float32 | Float64, weight: Float32 | Float64) -> float:
    """Value `[n]` at which half of the weight `[n]` lies below; 0 where there is none."""
    if len(values) == 0:
        return 0.0
    order = np.argsort(values)
    total = np.cumsum(weight[order])
    return float(values[order][min(int(np.searchsorted(total, 0.5 * total[-1])), len(values) - 1)])
