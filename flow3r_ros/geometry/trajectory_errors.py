"""Trajectory metrics: absolute trajectory error and relative pose error, with the field's
definitions.

Poses are camera-to-world 4x4 float64; trajectories are matched by stamp, never by position in the
file. ATE and RPE follow Sturm et al. (IROS 2012); alignment is the least-squares Sim(3)/SE(3) of
Umeyama (PAMI 1991). Values equal those of `evo` (a test compares).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.motion import path_length, rotation_angle
from flow3r_ros.geometry.time_offset import better_offset
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_alignment import ALIGNMENTS, Align, align_poses, associate
from flow3r_ros.types import Float64


def measure_trajectory(
    est: Trajectory,
    ref: Trajectory,
    align: Align = "sim3",
    delta: float = 1,
    delta_unit: Literal["frames", "metres"] = "frames",
    all_pairs: bool = False,
    max_difference_s: float = 0.01,
    offset_s: float = 0.0,
) -> dict[str, Any]:
    """Compare an estimate with a reference.

    Args:
        est: estimated trajectory.
        ref: reference trajectory.
        align: what of the estimate is free: nothing, its scale, SE(3), or Sim(3) (the usual choice
            for one camera).
        delta: distance of the RPE pairs, in `delta_unit`; metres are measured along the reference.
        delta_unit: unit of `delta`.
        all_pairs: overlapping pairs instead of consecutive ones.
        max_difference_s: largest stamp difference of a match, seconds.
        offset_s: seconds added to the stamps of the estimate, for a reference in another time base.

    Returns:
        `ate_rmse, ate_mean, ate_median, ate_max` (metres of the reference), `rpe_trans_rmse`
        (metres), `rpe_rot_deg_rmse`, `scale` applied to the estimate, `matched`, `matched_share`
        of the shorter trajectory's poses, `est_frames`, `ref_frames`, `unmatched`, `gaps` (holes in
        the matched stamps wider than 1.5 median steps; RPE pairs span them), `rpe_pairs`,
        `path_length` (metres, reference), `align`, `offset_s`, `suggested_offset_s` (where the
        motions agree clearly better at another time offset; it is never applied by itself).

    Raises:
        EvaluationError: no overlap in time (the offset is reported), fewer than 3 matches, or a
            motion without extent where a scale is asked for.
    """
    if align not in ALIGNMENTS:
        raise EvaluationError(f"unknown alignment {align!r}", f"use one of {', '.join(ALIGNMENTS)}")
    shifted = Trajectory(est.stamps_ns + round(offset_s * 1e9), est.poses, est.name)
    est_ids, ref_ids = associate(shifted, ref, max_difference_s)
    est_poses, ref_poses = shifted.poses[est_ids], ref.poses[ref_ids]
    alignment = align_poses(est_poses, ref_poses, align)
    aligned = alignment.apply(est_poses)

    errors = np.linalg.norm(aligned[:, :3, 3] - ref_poses[:, :3, 3], axis=1)
    pairs = (
        _pairs_by_index(len(ref_ids), delta, all_pairs)
        if delta_unit == "frames"
        else _pairs_by_path(ref_poses, delta, all_pairs)
    )
    if not len(pairs):
        raise EvaluationError(
            f"no pair of poses is {delta:g} {delta_unit} apart", "use a smaller delta"
        )
    translation, rotation = relative_pose_errors(aligned, ref_poses, pairs)
    steps = np.diff(ref.stamps_ns[ref_ids])
    better = better_offset(shifted, ref)
    return {
        "ate_rmse": _rmse(errors),
        "ate_mean": float(errors.mean()),
        "ate_median": float(np.median(errors)),
        "ate_max": float(errors.max()),
        "rpe_trans_rmse": _rmse(translation),
        "rpe_rot_deg_rmse": _rmse(np.degrees(rotation)),
        "scale": alignment.scale,
        "matched": len(est_ids),
        "matched_share": len(est_ids) / min(len(est.stamps_ns), len(ref.stamps_ns)),
        "est_frames": len(est.stamps_ns),
        "ref_frames": len(ref.stamps_ns),
        "unmatched": len(est.stamps_ns) - len(est_ids),
        "gaps": int(np.sum(steps > 1.5 * np.median(steps))),
        "rpe_pairs": len(pairs),
        "path_length": path_length(ref_poses),
        "align": align,
        "offset_s": offset_s,
        "suggested_offset_s": None if better is None else offset_s + better,
    }


def relative_pose_errors(
    est: Float64, ref: Float64, pairs: Sequence[tuple[int, int]]
) -> tuple[Float64, Float64]:
    """Relative pose error of each (i, j): `(Q_i^-1 Q_j)^-1 (P_i^-1 P_j)`, Q reference, P estimate
    (Sturm et al. 2012, eq. 2).

    Returns:
        translation `[M]` in metres and rotation `[M]` in radians.
    """
    first, second = np.asarray(pairs, np.int64).T
    est_step = invert(est[first]) @ est[second]
    ref_step = invert(ref[first]) @ ref[second]
    error = invert(ref_step) @ est_step
    return np.linalg.norm(error[:, :3, 3], axis=1), rotation_angle(error[:, :3, :3])


def _rmse(values: Float64) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _pairs_by_index(count: int, delta: float, all_pairs: bool) -> list[tuple[int, int]]:
    step = int(delta)
    if step != delta or step < 1:
        raise EvaluationError(f"a delta of {delta:g} frames is not a positive whole number")
    starts = range(0, count - step, 1 if all_pairs else step)
    return [(i, i + step) for i in starts]


def _pairs_by_path(poses: Float64, delta: float, all_pairs: bool) -> list[tuple[int, int]]:
    """Pairs whose distance along the path is `delta` metres (within a tenth of it when
    overlapping)."""
    if not delta > 0:
        raise EvaluationError(f"a delta of {delta:g} metres is not positive")
    travelled = np.concatenate(
        [[0.0], np.cumsum(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1))]
    )
    if all_pairs:
        pairs = []
        for i in range(len(travelled) - 1):
            off = np.abs(travelled[i + 1 :] - travelled[i] - delta)
            j = int(np.argmin(off))
            if off[j] <= 0.1 * delta:
                pairs.append((i, i + 1 + j))
        return pairs
    ends = [0]
    for i in range(1, len(travelled)):
        if travelled[i] - travelled[ends[-1]] >= delta:
            ends.append(i)
    return list(itertools.pairwise(ends))
