"""Does a run know when it is wrong? Confident lies, and whether its covariances hold.

A *confident lie* is a frame that says TRACKING while, over the last ten frames, its relative
rotation is off by more than ten degrees or its relative position by more than 30 % of the median
depth. *NEES/6* is the squared error of a relative pose over what its covariance claims, one on
average where that is right (Bar-Shalom et al., Estimation with Applications to Tracking and
Navigation, 2001, section 5.4): below one it is too careful, above one too sure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.evaluation.claims import Claims, position_errors, rotation_agreement
from flow3r_ros.geometry.lie import hat, invert, so3_log
from flow3r_ros.geometry.motion import rotation_angle
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Bool, Float64

LIE_FRAMES = 10
LIE_ROTATION_DEG = 10.0
LIE_DEPTH_SHARE = 0.3
"""a lie: over so many frames, rotation off by more, or position off by more of the median depth"""
GAPS = (1, 10, 50)
"""frames between the two poses whose relative covariance is judged"""


def judge_run(record: RunRecord, reference: Trajectory) -> dict[str, Any]:
    """Everything this module and `claims` measure of a run with truth.

    Returns:
        `lies` (`confident_lies`), `nees` (`consistency_of`), `rotation`
        (`claims.rotation_agreement`), `position` (`claims.position_errors`).

    Raises:
        EvaluationError: fewer than three stamps match.
    """
    claims = Claims.of(record, reference)
    return {
        "lies": confident_lies(claims),
        "nees": consistency_of(claims),
        "rotation": rotation_agreement(claims),
        "position": position_errors(claims),
    }


def confident_lies(claims: Claims) -> dict[str, Any]:
    """`share` of the frames with truth that are confident lies, `lies` and `frames` (counts),
    `tracking` (share that says TRACKING), `first` (index of the first lie, None without one)."""
    lying = lying_frames(claims)
    return {
        "share": float(lying.mean()),
        "lies": int(lying.sum()),
        "frames": len(lying),
        "tracking": float(claims.tracking.mean()),
        "first": int(claims.index[lying][0]) if lying.any() else None,
    }


def lying_frames(claims: Claims) -> Bool:
    """Which frames lie, bool `[N]`. Where a segment has no scale (nothing moved), rotation alone is
    judged."""
    before = claims.before(LIE_FRAMES)
    lying = np.zeros(len(before), bool)
    judged = np.flatnonzero(claims.tracking & (before >= 0))
    if not len(judged):
        return lying
    start, scales = before[judged], claims.scales()[judged]
    said = invert(claims.poses[start]) @ claims.poses[judged]
    true = invert(claims.truth[start]) @ claims.truth[judged]
    turn = np.degrees(rotation_angle(np.swapaxes(true[:, :3, :3], 1, 2) @ said[:, :3, :3]))
    gap = np.linalg.norm(scales[:, None] * said[:, :3, 3] - true[:, :3, 3], axis=1)
    with np.errstate(invalid="ignore"):
        far = gap > LIE_DEPTH_SHARE * scales * claims.median_depth[judged]
    lying[judged] = (turn > LIE_ROTATION_DEG) | far
    return lying


def consistency_of(claims: Claims) -> dict[str, Any]:
    """NEES/6 of relative poses, by gap in frames: `median`, `p10`, `p90`, `pairs`, and `undefined`,
    the share of pairs whose relative covariance is none (not positive definite: counted as
    infinite). `median_with_truth_jitter` allows for the noise of the truth itself
    (`truth_jitter`); the other numbers do not."""
    jitter = truth_jitter(claims.truth)
    result: dict[str, Any] = {"truth_jitter_position": jitter[0], "truth_jitter_rad": jitter[1]}
    for gap in GAPS:
        values, allowed = relative_nees(claims, gap), relative_nees(claims, gap, jitter)
        if not len(values):
            continue
        p10, median, p90 = np.percentile(values, [10, 50, 90], method="lower")
        result[f"gap_{gap}"] = {
            "median": float(median),
            "p10": float(p10),
            "p90": float(p90),
            "median_with_truth_jitter": float(np.percentile(allowed, 50, method="lower")),
            "pairs": len(values),
            "undefined": float(np.mean(np.isinf(values))),
        }
    return result


def relative_nees(claims: Claims, gap: int, jitter: tuple[float, float] = (0.0, 0.0)) -> Float64:
    """NEES/6 of every pair of frames `gap` estimates apart with poses in one segment, `[M]`.

    The error is that of the later pose, in world axes, against the earlier one moved by the true
    motion: position, and rotation on the left. Its covariance is the step's for neighbours, else
    `S_j - F S_i F^T` with `F = [[I, -hat(p_j - p_i)], [0, I]]`, which carries what was wrong at i
    to j. Infinite where that is not positive definite.

    Args:
        claims: the run and its truth.
        gap: frames.
        jitter: 1-sigma of one true pose, position (units of the truth) and rotation (rad), added.
    """
    rows = {int(index): row for row, index in enumerate(claims.index)}
    scales, values = claims.scales(), []
    for j, index in enumerate(claims.index):
        i = rows.get(int(index) - gap)
        if i is None or not (claims.has_pose[i] and claims.has_pose[j]):
            continue
        if claims.segments[i] != claims.segments[j] or not np.isfinite(scales[j]):
            continue
        motion = invert(claims.truth[i]) @ claims.truth[j]
        motion[:3, 3] /= scales[j]
        error = _error(claims.poses[i] @ motion, claims.poses[j])
        covariance = _relative_covariance(claims, i, j, gap)
        noise = [jitter[0] / scales[j]] * 3 + [jitter[1]] * 3
        values.append(_nees(error, covariance + 2.0 * np.diag(np.square(noise))))
    return np.array(values, np.float64)


def truth_jitter(poses: Float64) -> tuple[float, float]:
    """White noise of true poses `[N, 4, 4]` from their third differences: 1-sigma of a position
    coordinate (units of the poses) and of a rotation angle (rad).

    A smooth way has next to no third difference, white noise has 20 times its variance; the median
    keeps jumps out. A shaking camera reads as noise, so this is an upper bound.
    """
    if len(poses) < 5:
        return 0.0, 0.0
    steps = invert(poses[:-1]) @ poses[1:]
    turns = np.stack([so3_log(step[:3, :3]) for step in steps])
    third = (np.diff(poses[:, :3, 3], n=3, axis=0), np.diff(turns, n=2, axis=0))
    position, rotation = (1.4826 * float(np.median(np.abs(d))) / np.sqrt(20.0) for d in third)
    return position, rotation


def _relative_covariance(claims: Claims, i: int, j: int, gap: int) -> Float64:
    if gap == 1:
        return np.asarray(claims.covariances[j, 1])
    carry = np.eye(6)
    carry[:3, 3:] = -hat(claims.poses[j, :3, 3] - claims.poses[i, :3, 3])
    return np.asarray(claims.covariances[j, 0] - carry @ claims.covariances[i, 0] @ carry.T)


def _error(expected: Float64, said: Float64) -> Float64:
    turn = so3_log(said[:3, :3] @ expected[:3, :3].T)
    return np.concatenate([said[:3, 3] - expected[:3, 3], turn])


def _nees(error: Float64, covariance: Float64) -> float:
    try:
        whitened = np.linalg.solve(np.linalg.cholesky(covariance), error)
    except np.linalg.LinAlgError:
        return float("inf")
    return float(whitened @ whitened) / 6.0
