"""Stamped trajectories: what they are, and the stamp or pose nearest to a moment."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import interpolate
from flow3r_ros.types import Float64, seconds


@dataclass(frozen=True)
class Trajectory:
    """Stamped camera-to-world poses of the optical frame.

    `stamps_ns` int64 `[N]`, strictly increasing; `poses` float64 `[N, 4, 4]`; `name` is what
    messages call it.
    """

    stamps_ns: NDArray[np.int64]
    poses: Float64
    name: str = "trajectory"

    def __post_init__(self) -> None:
        if len(self.stamps_ns) == 0:
            raise EvaluationError(f"{self.name}: holds no pose")
        if self.poses.shape != (len(self.stamps_ns), 4, 4):
            raise EvaluationError(
                f"{self.name}: {len(self.stamps_ns)} stamps but poses of shape {self.poses.shape}"
            )
        bad = np.flatnonzero(~np.isfinite(self.poses).all(axis=(1, 2)))
        if len(bad):
            raise EvaluationError(
                f"{self.name}: {len(bad)} poses are not finite, the first at "
                f"{seconds(int(self.stamps_ns[bad[0]]))} s",
                "leave them out",
            )
        back = np.flatnonzero(np.diff(self.stamps_ns) <= 0)
        if len(back):
            raise EvaluationError(
                f"{self.name}: stamps do not increase "
                f"({seconds(int(self.stamps_ns[back[0]]))} s is followed by "
                f"{seconds(int(self.stamps_ns[back[0] + 1]))} s)",
                "sort the file and remove repeated stamps",
            )


def nearest_stamp(stamps_ns: Sequence[int], stamp_ns: int, tolerance_ns: int) -> int | None:
    """Index of the stamp nearest to `stamp_ns` in an increasing sequence; None when none lies
    within the tolerance (int ns)."""
    at = bisect_left(stamps_ns, stamp_ns)
    near = [
        k
        for k in (at - 1, at)
        if 0 <= k < len(stamps_ns) and abs(stamps_ns[k] - stamp_ns) <= tolerance_ns
    ]
    return min(near, key=lambda k: abs(stamps_ns[k] - stamp_ns)) if near else None


def pose_at(
    stamps_ns: Sequence[int], poses: Sequence[Float64], stamp_ns: int, max_gap_ns: int
) -> Float64 | None:
    """Pose `[4, 4]` at a stamp, interpolated between its neighbours in an increasing sequence.

    None outside the sequence, or where the neighbours lie more than `max_gap_ns` apart.
    """
    after = bisect_left(stamps_ns, stamp_ns)
    if after < len(stamps_ns) and stamps_ns[after] == stamp_ns:
        return poses[after]
    if (
        after == 0
        or after == len(stamps_ns)
        or stamps_ns[after] - stamps_ns[after - 1] > max_gap_ns
    ):
        return None
    before_ns = stamps_ns[after - 1]
    return interpolate(
        poses[after - 1], poses[after], (stamp_ns - before_ns) / (stamps_ns[after] - before_ns)
    )
