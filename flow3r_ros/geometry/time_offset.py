"""Whether two trajectories agree better at another time offset: how fast they turn and move is
compared, which no alignment changes."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.motion import rotation_angle
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Float64

SAMPLES = 600
"""of the longer trajectory, on the common grid in time"""
MIN_OVERLAP = 20
CLEAR, MARGIN = 0.6, 0.3
"""correlation that a better offset must reach, and by how much it must beat that of the stamps as
they are"""


def better_offset(est: Trajectory, ref: Trajectory) -> float | None:
    """Seconds to add to the stamps of the estimate, to about one frame; None where the stamps are
    best as they are or nothing is clear.

    It is a hint for the user, never applied by itself.
    """
    steps = [
        np.median(np.diff(item.stamps_ns)) / 1e9
        for item in (est, ref)
        if len(item.stamps_ns) > MIN_OVERLAP
    ]
    if len(steps) < 2:
        return None
    longest = max(item.stamps_ns[-1] - item.stamps_ns[0] for item in (est, ref)) / 1e9
    step = float(max(*steps, longest / SAMPLES))
    ours, theirs = _motion(est, step), _motion(ref, step)
    overlap = max(MIN_OVERLAP, min(len(ours), len(theirs)) // 2)
    start = (int(ref.stamps_ns[0]) - int(est.stamps_ns[0])) / 1e9
    lags = range(overlap - len(ours), len(theirs) - overlap + 1)
    if not len(lags):
        return None
    scores = np.array([_correlation(ours, theirs, lag) for lag in lags])
    best, as_they_are = lags[int(scores.argmax())], round(-start / step)
    now = scores[as_they_are - lags[0]] if as_they_are in lags else 0.0
    if best == as_they_are or scores.max() < max(CLEAR, now + MARGIN):
        return None
    return start + best * step


def _motion(trajectory: Trajectory, step: float) -> Float64:
    """Turn rate and speed `[N, 2]` on a regular grid from the first stamp."""
    seconds = (trajectory.stamps_ns - trajectory.stamps_ns[0]) / 1e9
    relative = invert(trajectory.poses[:-1]) @ trajectory.poses[1:]
    taken = np.diff(seconds)
    rates = (
        rotation_angle(relative[:, :3, :3]) / taken,
        np.linalg.norm(relative[:, :3, 3], axis=1) / taken,
    )
    grid = np.arange(0.0, seconds[-1], step)
    return np.stack(
        [np.interp(grid, (seconds[1:] + seconds[:-1]) / 2, rate) for rate in rates], axis=1
    )


def _correlation(ours: Float64, theirs: Float64, lag: int) -> float:
    """Mean of the correlations of both rates, ours at i beside theirs at i + lag; a rate that is
    constant counts as 0."""
    first, last = max(0, -lag), min(len(ours), len(theirs) - lag)
    a, b = ours[first:last], theirs[first + lag : last + lag]
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    spread = np.linalg.norm(a, axis=0) * np.linalg.norm(b, axis=0)
    return float(
        np.mean(np.where(spread > 1e-12, (a * b).sum(axis=0) / np.maximum(spread, 1e-12), 0.0))
    )
