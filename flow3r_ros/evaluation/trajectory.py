"""Trajectory metrics: absolute trajectory error and relative pose error, with the field's definitions.

Poses are camera-to-world 4x4 float64; trajectories are matched by stamp, never by position in the file. ATE and RPE follow Sturm et
al. (IROS 2012); alignment is the least-squares Sim(3)/SE(3) of Umeyama (PAMI 1991). Values equal those of `evo` (a test compares).
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.motion import moves, path_length, rotation_angle
from flow3r_ros.evaluation.time_offset import better_offset
from flow3r_ros.evaluation.tum import Trajectory, read_tum, write_tum
from flow3r_ros.geometry.lie import invert, sim3_parts, umeyama
from flow3r_ros.types import Float64

__all__ = ["ALIGNMENTS", "Align", "Trajectory", "align_poses", "associate", "evaluate_trajectory", "read_tum", "write_tum"]

Align = Literal["none", "scale", "se3", "sim3"]
ALIGNMENTS: tuple[Align, ...] = ("none", "scale", "se3", "sim3")


@dataclass(frozen=True)
class Alignment:
    """The Sim(3) that was applied to the estimate before it was compared."""

    scale: float
    rotation: Float64
    translation: Float64

    def apply(self, poses: Float64) -> Float64:
        """Move camera-to-world poses `[N, 4, 4]`; the rotation blocks stay orthonormal."""
        moved = poses.copy()
        moved[:, :3, :3] = self.rotation @ poses[:, :3, :3]
        moved[:, :3, 3] = self.scale * poses[:, :3, 3] @ self.rotation.T + self.translation
        return moved


def evaluate_trajectory(
    est: Path | Trajectory,
    ref: Path | Trajectory,
    align: Align = "sim3",
    delta: float = 1,
    delta_unit: Literal["frames", "metres"] = "frames",
    all_pairs: bool = False,
    max_difference_s: float = 0.01,
    offset_s: float = 0.0,
) -> dict[str, Any]:
    """Compare an estimate with a reference.

    Args:
        est: estimated trajectory or TUM file.
        ref: reference trajectory or TUM file.
        align: what of the estimate is free: nothing, its scale, SE(3), or Sim(3) (the usual choice for one camera).
        delta: distance of the RPE pairs, in `delta_unit`; metres are measured along the reference.
        delta_unit: unit of `delta`.
        all_pairs: overlapping pairs instead of consecutive ones.
        max_difference_s: largest stamp difference of a match, seconds.
        offset_s: seconds added to the stamps of the estimate, for a reference in another time base.

    Returns:
        `ate_rmse, ate_mean, ate_median, ate_max` (metres of the reference), `rpe_trans_rmse` (metres), `rpe_rot_deg_rmse`, `scale`
        applied to the estimate, `matched`, `est_frames`, `ref_frames`, `unmatched`, `gaps` (holes in the matched stamps wider than
        1.5 median steps; RPE pairs span them), `rpe_pairs`, `path_length` (metres, reference), `align`, `offset_s`, `suggested_offset_s`
        (where the motions agree clearly better at another time offset; it is never applied by itself).

    Raises:
        EvaluationError: no overlap in time (the offset is reported), fewer than 3 matches, or a motion without extent where a scale is
            asked for.
    """
    if align not in ALIGNMENTS:
        raise EvaluationError(f"unknown alignment {align!r}", f"use one of {', '.join(ALIGNMENTS)}")
    estimate, reference = _load(est), _load(ref)
    shifted = Trajectory(estimate.stamps_ns + round(offset_s * 1e9), estimate.poses, estimate.name)
    est_ids, ref_ids = associate(shifted, reference, max_difference_s)
    est_poses, ref_poses = shifted.poses[est_ids], reference.poses[ref_ids]
    alignment = align_poses(est_poses, ref_poses, align)
    aligned = alignment.apply(est_poses)

    errors = np.linalg.norm(aligned[:, :3, 3] - ref_poses[:, :3, 3], axis=1)
    pairs = _pairs_by_index(len(ref_ids), delta, all_pairs) if delta_unit == "frames" else _pairs_by_path(ref_poses, delta, all_pairs)
    if not len(pairs):
        raise EvaluationError(f"no pair of poses is {delta:g} {delta_unit} apart", "use a smaller delta")
    translation, rotation = relative_pose_errors(aligned, ref_poses, pairs)
    steps = np.diff(reference.stamps_ns[ref_ids])
    better = better_offset(shifted, reference)
    return {
        "ate_rmse": _rmse(errors),
        "ate_mean": float(errors.mean()),
        "ate_median": float(np.median(errors)),
        "ate_max": float(errors.max()),
        "rpe_trans_rmse": _rmse(translation),
        "rpe_rot_deg_rmse": _rmse(np.degrees(rotation)),
        "scale": alignment.scale,
        "matched": len(est_ids),
        "est_frames": len(estimate.stamps_ns),
        "ref_frames": len(reference.stamps_ns),
        "unmatched": len(estimate.stamps_ns) - len(est_ids),
        "gaps": int(np.sum(steps > 1.5 * np.median(steps))),
        "rpe_pairs": len(pairs),
        "path_length": path_length(ref_poses),
        "align": align,
        "offset_s": offset_s,
        "suggested_offset_s": None if better is None else offset_s + better,
    }


def associate(est: Trajectory, ref: Trajectory, max_difference_s: float = 0.01) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match each pose of the shorter trajectory to the nearest stamp of the longer; a pose is used once.

    Returns:
        (indices into `est`, indices into `ref`), int64 `[M]`, both increasing.

    Raises:
        EvaluationError: fewer than 3 poses match; the message tells the offset between the two time bases.
    """
    swapped = len(ref.stamps_ns) < len(est.stamps_ns)
    short, long = (ref, est) if swapped else (est, ref)
    right = np.clip(np.searchsorted(long.stamps_ns, short.stamps_ns), 1, max(len(long.stamps_ns) - 1, 1))
    left = right - 1
    right = np.minimum(right, len(long.stamps_ns) - 1)
    to_left = np.abs(short.stamps_ns - long.stamps_ns[left])
    to_right = np.abs(short.stamps_ns - long.stamps_ns[right])
    nearest = np.where(to_left <= to_right, left, right)
    difference = np.minimum(to_left, to_right)

    best: dict[int, int] = {}
    for index in np.flatnonzero(difference <= round(max_difference_s * 1e9)):
        target = int(nearest[index])
        if target not in best or difference[index] < difference[best[target]]:
            best[target] = int(index)
    if len(best) < 3:
        raise _no_overlap(est, ref, len(best), max_difference_s)
    long_ids = np.array(sorted(best), np.int64)
    short_ids = np.array([best[int(target)] for target in long_ids], np.int64)
    return (long_ids, short_ids) if swapped else (short_ids, long_ids)


def align_poses(est: Float64, ref: Float64, align: Align) -> Alignment:
    """Least-squares alignment of camera centres `[N, 4, 4]` onto the reference (Umeyama 1991).

    Raises:
        EvaluationError: a scale is asked for and one of the motions has no extent.
    """
    if align == "none":
        return Alignment(1.0, np.eye(3), np.zeros(3))
    source, target = est[:, :3, 3], ref[:, :3, 3]
    with_scale = align in ("scale", "sim3")
    if with_scale:
        for name, poses in (("estimate", est), ("reference", ref)):
            if not moves(poses):
                raise EvaluationError(f"the {name} does not move: its scale is undefined", "align with se3 or none")
    scale, rotation, translation = sim3_parts(umeyama(source, target, with_scale=with_scale))
    if align == "scale":
        return Alignment(scale, np.eye(3), np.zeros(3))
    return Alignment(scale, rotation, translation)


def relative_pose_errors(est: Float64, ref: Float64, pairs: Sequence[tuple[int, int]]) -> tuple[Float64, Float64]:
    """Relative pose error of each (i, j): `(Q_i^-1 Q_j)^-1 (P_i^-1 P_j)`, Q reference, P estimate (Sturm et al. 2012, eq. 2).

    Returns:
        translation `[M]` in metres and rotation `[M]` in radians.
    """
    first, second = np.asarray(pairs, np.int64).T
    est_step = invert(est[first]) @ est[second]
    ref_step = invert(ref[first]) @ ref[second]
    error = invert(ref_step) @ est_step
    return np.linalg.norm(error[:, :3, 3], axis=1), rotation_angle(error[:, :3, :3])


def _load(source: Path | Trajectory) -> Trajectory:
    return source if isinstance(source, Trajectory) else read_tum(Path(source))


def _rmse(values: Float64) -> float:
    return float(np.sqrt(np.mean(values**2)))


def _pairs_by_index(count: int, delta: float, all_pairs: bool) -> list[tuple[int, int]]:
    step = int(delta)
    if step != delta or step < 1:
        raise EvaluationError(f"a delta of {delta:g} frames is not a positive whole number")
    starts = range(0, count - step, 1 if all_pairs else step)
    return [(i, i + step) for i in starts]


def _pairs_by_path(poses: Float64, delta: float, all_pairs: bool) -> list[tuple[int, int]]:
    """Pairs whose distance along the path is `delta` metres (within a tenth of it when overlapping)."""
    if not delta > 0:
        raise EvaluationError(f"a delta of {delta:g} metres is not positive")
    travelled = np.concatenate([[0.0], np.cumsum(np.linalg.norm(np.diff(poses[:, :3, 3], axis=0), axis=1))])
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


def _no_overlap(est: Trajectory, ref: Trajectory, matched: int, max_difference_s: float) -> EvaluationError:
    for item in (est, ref):
        if len(item.stamps_ns) < 3:
            return EvaluationError(f"{item.name}: holds only {len(item.stamps_ns)} poses", "a comparison needs three")
    first, last = (int(stamp) for stamp in est.stamps_ns[[0, -1]])
    ref_first, ref_last = (int(stamp) for stamp in ref.stamps_ns[[0, -1]])
    better = better_offset(est, ref)
    hint = "" if better is None else f" (the motions agree best at --offset {better:.3f})"
    return EvaluationError(
        f"only {matched} stamps of {est.name} and {ref.name} agree within {max_difference_s:g} s: the estimate spans "
        f"{first / 1e9:.3f}..{last / 1e9:.3f} s, the reference {ref_first / 1e9:.3f}..{ref_last / 1e9:.3f} s; "
        f"the starts differ by {(ref_first - first) / 1e9:+.6f} s",
        f"give the time offset with --offset{hint}",
    )
