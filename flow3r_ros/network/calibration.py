"""From what a network says of its depth to a probability: a monotone curve fitted on clips that it
was not trained on, kept in the manifest of its weights.

Fitted by isotonic regression (pool adjacent violators) over bins of equal size, read off
piecewise linearly, so the order of pixels stays as the network has it.
"""

from __future__ import annotations

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from flow3r_ros.types import Bool, Float32, Float64

FIT_BINS = 20
"""bins of equal size that the curve is fitted on"""
ERROR_BINS = 10
"""bins of equal width of the calibration error"""


class Calibration(BaseModel):
    """The probability of "within 10 % of the true depth" over the network's own confidence."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)
    said: tuple[float, ...] = Field(min_length=1, description="confidences, ascending")
    right: tuple[float, ...] = Field(description="share of pixels that were right there")
    measured_on: str = ""
    error: float = Field(0.0, description="calibration error on clips the curve was not fitted on")
    error_before: float = Field(0.0, description="the same without the curve")

    @model_validator(mode="after")
    def _is_a_curve(self) -> Calibration:
        rises = all(a < b for a, b in zip(self.said, self.said[1:], strict=False))
        if len(self.said) != len(self.right) or not rises:
            raise ValueError("said and right must be of one length, said ascending")
        return self

    def apply(self, confidence: Float32) -> Float32:
        """Calibrated probabilities of confidences in [0, 1], any shape."""
        return np.interp(confidence, self.said, self.right).astype(np.float32)


def fit_calibration(said: Float32, right: Bool) -> Calibration:
    """The curve of confidences `said [M]` and whether each pixel was right `[M]`, M > 0."""
    order = np.argsort(said, kind="stable")
    bins = np.array_split(order, min(FIT_BINS, len(order)))
    levels = _isotonic(
        np.array([right[part].mean() for part in bins]), np.array([len(part) for part in bins])
    )
    places = np.array([said[part].mean() for part in bins], np.float64)
    unique, first = np.unique(places.round(6), return_index=True)
    return Calibration(
        said=tuple(float(place) for place in unique),
        right=tuple(round(float(levels[index]), 4) for index in first),
    )


def calibration_error(said: Float32, right: Bool) -> float:
    """Expected calibration error: mean over pixels of |said - right| of their bin of said."""
    place = np.clip((said * ERROR_BINS).astype(int), 0, ERROR_BINS - 1)
    total = 0.0
    for index in range(ERROR_BINS):
        here = place == index
        if here.any():
            total += abs(float(said[here].mean()) - float(right[here].mean())) * float(here.mean())
    return total


def _isotonic(values: Float64, weights: Float64) -> Float64:
    """The non-decreasing sequence nearest to `values` in weighted squares."""
    blocks: list[list[float]] = []
    for value, weight in zip(values, weights, strict=True):
        blocks.append([float(value), float(weight), 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            after, before = blocks.pop(), blocks.pop()
            total = before[1] + after[1]
            mean = (before[0] * before[1] + after[0] * after[1]) / total
            blocks.append([mean, total, before[2] + after[2]])
    return np.concatenate([np.full(int(count), value) for value, _, count in blocks])
