"""Matches that an adjustment never sees, to judge it by: what poses were fitted to always agrees
better with them than before, whether they became right or wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.epipolar import Matches, robust_cost, sampson_residual
from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Float64

Rays = Callable[[int, NDArray[np.uint32]], Float64]
"""of a picture, by number, and rows `[N]` of its features: their rays `[N, 3]` with z = 1"""
EVERY = 8
"""one match in so many of a pair of pictures is held out"""


class HeldOut:
    """Matches held out, `rows` of features in two pictures, which are known by number."""

    def __init__(self) -> None:
        self._pairs: list[tuple[int, int, NDArray[np.uint32]]] = []

    def hold(self, first: int, second: int, rows: NDArray[np.uint32]) -> NDArray[np.uint32]:
        """Keep some of the matches `[M, 2]` of a pair; returns the others."""
        held = np.arange(len(rows)) % EVERY == EVERY - 1
        self._pairs.append((first, second, rows[held]))
        return np.asarray(rows[~held], np.uint32)

    def error_px(
        self,
        poses: Mapping[int, Float64],
        rays: Rays,
        focal: float,
        missed_px: float | None = None,
    ) -> float:
        """Robust rms of their epipolar error in pixels, NaN where nothing can be judged.

        Args:
            poses: `[4, 4]` camera-to-world by picture.
            rays: of features (picture, rows `[N]`), `[N, 3]` with z = 1.
            focal: pixels, of the first picture.
            missed_px: what pairs count with that have a picture without a pose, None: not at all.
        """
        errors = [np.empty(0)]
        for first, second, rows in self._pairs:
            if first in poses and second in poses:
                errors.append(_errors(poses, rays, first, second, rows, focal))
            elif missed_px is not None:
                errors.append(np.full(len(rows), missed_px))
        error = np.concatenate(errors)
        return robust_cost(error, np.ones(len(error))) if len(error) else float("nan")

    def agreement(
        self, poses: Mapping[int, Float64], rays: Rays, focal: float, within_px: float
    ) -> dict[int, float]:
        """Share of the matches of each picture with others in `poses` whose epipolar error is
        below `within_px`, by picture; pictures without matches are not in it. Arguments as of
        `error_px`."""
        agreed, asked = Counter[int](), Counter[int]()
        for first, second, rows in self._pairs:
            if first in poses and second in poses and len(rows):
                error = _errors(poses, rays, first, second, rows, focal)
                for picture in (first, second):
                    agreed[picture] += int(np.count_nonzero(np.abs(error) < within_px))
                    asked[picture] += len(rows)
        return {picture: agreed[picture] / asked[picture] for picture in asked}


def _errors(
    poses: Mapping[int, Float64],
    rays: Rays,
    first: int,
    second: int,
    rows: NDArray[np.uint32],
    focal: float,
) -> Float64:
    """Epipolar errors `[N]` in pixels of the matches `rows` `[N, 2]` of two pictures."""
    T, nowhere = invert(poses[second]) @ poses[first], np.zeros(len(rows), np.intp)
    matches = Matches(
        rays(first, rows[:, 0]), rays(second, rows[:, 1]), np.ones(len(rows)), nowhere, nowhere,
        focal,
    )  # fmt: skip
    return sampson_residual(T[:3, :3], T[:3, 3], matches)
