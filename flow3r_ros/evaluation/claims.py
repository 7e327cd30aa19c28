"""What a run said of each frame beside what is true: matched by stamp, each segment with its own
unit.

A monocular run has a free unit and origin, and both change with every new segment; so one Sim(3) a
segment is fitted to the truth, and nothing is compared across two segments.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.evaluation.angular import pair_errors
from flow3r_ros.geometry.motion import moves, path_length
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_alignment import Alignment, align_poses, associate
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.row import STATES
from flow3r_ros.types import Bool, Float64, TrackingState

PAIR_FRAMES = 100
"""frames, evenly spaced over those with truth, whose pairs `rotation_agreement` compares"""


@dataclass(frozen=True)
class Claims:
    """The frames of a run that have a true pose, oldest first.

    `index` int `[N]` counts estimates of the run; `poses` and `truth` float64 `[N, 4, 4]`
    camera-to-world, in the run's and in the truth's unit; `tracking` bool `[N]`, the state is
    TRACKING; `has_pose` bool `[N]`; `segments` int `[N]`; `covariances` float64 `[N, 2, 6, 6]` of
    pose and step as in `types.Estimate`; `median_depth` float64 `[N]` in the run's unit, NaN where
    no depth was valid.
    """

    index: NDArray[np.int64]
    poses: Float64
    truth: Float64
    tracking: Bool
    has_pose: Bool
    segments: NDArray[np.int64]
    covariances: Float64
    median_depth: Float64

    @classmethod
    def of(cls, record: RunRecord, reference: Trajectory) -> Claims:
        """Match a run to its truth. Raises EvaluationError when fewer than three stamps match."""
        said = Trajectory(record.stamps_ns, record.poses, record.title)
        mine, true = associate(said, reference)
        states = record.column("state")[mine].astype(int)
        return cls(
            mine,
            said.poses[mine],
            reference.poses[true],
            states == STATES.index(TrackingState.TRACKING),
            np.array([STATES[state].has_pose for state in states]),
            record.column("segment")[mine].astype(np.int64),
            record.covariances[mine],
            record.column("depth_median")[mine].astype(np.float64),
        )

    def alignments(self) -> dict[int, Alignment]:
        """Segment -> the Sim(3) that brings its frames to the truth; a segment of fewer than three
        poses, or without any motion, has none."""
        found = {}
        for segment in np.unique(self.segments[self.has_pose]):
            here = self.has_pose & (self.segments == segment)
            still = not (moves(self.poses[here]) and moves(self.truth[here]))
            if here.sum() >= 3 and not still:
                found[int(segment)] = align_poses(self.poses[here], self.truth[here], "sim3")
        return found

    def scales(self) -> Float64:
        """Units of the truth per unit of the run, `[N]`, by the frame's segment; NaN where the
        segment has none."""
        by_segment = {segment: found.scale for segment, found in self.alignments().items()}
        return np.array([by_segment.get(int(s), np.nan) for s in self.segments], np.float64)

    def before(self, frames: int) -> NDArray[np.int64]:
        """For each frame the row of the frame so many estimates before it that has a pose in the
        same segment, or the oldest such since; -1 where there is none."""
        rows = np.full(len(self.index), -1)
        for row in np.flatnonzero(self.has_pose):
            first = int(np.searchsorted(self.index, self.index[row] - frames))
            since = np.arange(first, row)
            usable = self.has_pose[since] & (self.segments[since] == self.segments[row])
            if usable.any():
                rows[row] = since[usable][0]
        return rows


def position_errors(claims: Claims) -> dict[str, Any]:
    """`ate_rmse` over the frames with a pose, each segment aligned by its own Sim(3) (units of the
    truth; None where no segment can be aligned), `covered` (share of the frames with truth that
    this is about), `segments` and `path_length` of the truth."""
    alignments = claims.alignments()
    errors = [
        np.linalg.norm(
            found.apply(claims.poses[here])[:, :3, 3] - claims.truth[here, :3, 3], axis=1
        )
        for segment, found in alignments.items()
        for here in [claims.has_pose & (claims.segments == segment)]
    ]
    pooled = np.concatenate(errors) if errors else np.empty(0)
    return {
        "ate_rmse": float(np.sqrt(np.mean(pooled**2))) if len(pooled) else None,
        "covered": len(pooled) / len(claims.index),
        "segments": len(np.unique(claims.segments)),
        "path_length": path_length(claims.truth),
    }


def rotation_agreement(claims: Claims) -> dict[str, Any]:
    """Relative rotation over pairs of frames: all unordered pairs of up to PAIR_FRAMES frames that
    are evenly spaced over those with truth, whatever their state.

    Returns:
        `rra_5`, the share of pairs whose rotation is within 5 degrees, where a pair that the run
        does not answer (no pose, or two segments) counts as wrong; `rotation_median_deg` over the
        answered pairs (None without any); `answered` (share) and `pairs`.
    """
    count = len(claims.index)
    chosen = np.unique(np.linspace(0, count - 1, min(count, PAIR_FRAMES)).round().astype(int))
    rotation, _, _ = pair_errors(claims.poses[chosen], claims.truth[chosen])
    first, second = (chosen[side] for side in np.triu_indices(len(chosen), k=1))
    answered = claims.has_pose[first] & claims.has_pose[second]
    answered &= claims.segments[first] == claims.segments[second]
    return {
        "rra_5": float(np.mean(answered & (rotation < 5.0))),
        "rotation_median_deg": float(np.median(rotation[answered])) if answered.any() else None,
        "answered": float(np.mean(answered)),
        "pairs": len(rotation),
    }
