"""Two trajectories brought together: matched by stamp, aligned in the least-squares sense.

Poses are camera-to-world 4x4 float64; the alignment of camera centres is Umeyama's (PAMI 1991).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import sim3_parts, umeyama
from flow3r_ros.geometry.motion import moves
from flow3r_ros.geometry.time_offset import better_offset
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Float64

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


def associate(
    est: Trajectory, ref: Trajectory, max_difference_s: float = 0.01
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Match each pose of the shorter trajectory to the nearest stamp of the longer; a pose is used
    once.

    Returns:
        (indices into `est`, indices into `ref`), int64 `[M]`, both increasing.

    Raises:
        EvaluationError: fewer than 3 poses match; the message tells the offset between the two time
            bases.
    """
    swapped = len(ref.stamps_ns) < len(est.stamps_ns)
    short, long = (ref, est) if swapped else (est, ref)
    right = np.clip(
        np.searchsorted(long.stamps_ns, short.stamps_ns), 1, max(len(long.stamps_ns) - 1, 1)
    )
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
                raise EvaluationError(
                    f"the {name} does not move: its scale is undefined", "align with se3 or none"
                )
    scale, rotation, translation = sim3_parts(umeyama(source, target, with_scale=with_scale))
    if align == "scale":
        return Alignment(scale, np.eye(3), np.zeros(3))
    return Alignment(scale, rotation, translation)


def _no_overlap(
    est: Trajectory, ref: Trajectory, matched: int, max_difference_s: float
) -> EvaluationError:
    for item in (est, ref):
        if len(item.stamps_ns) < 3:
            return EvaluationError(
                f"{item.name}: holds only {len(item.stamps_ns)} poses", "a comparison needs three"
            )
    first, last = (int(stamp) for stamp in est.stamps_ns[[0, -1]])
    ref_first, ref_last = (int(stamp) for stamp in ref.stamps_ns[[0, -1]])
    better = better_offset(est, ref)
    hint = "" if better is None else f" (the motions agree best at --offset {better:.3f})"
    return EvaluationError(
        f"only {matched} stamps of {est.name} and {ref.name} agree within "
        f"{max_difference_s:g} s: the estimate spans "
        f"{first / 1e9:.3f}..{last / 1e9:.3f} s, the reference "
        f"{ref_first / 1e9:.3f}..{ref_last / 1e9:.3f} s; "
        f"the starts differ by {(ref_first - first) / 1e9:+.6f} s",
        f"give the time offset with --offset{hint}",
    )
