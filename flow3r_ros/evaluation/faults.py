"""The fault suite: does the odometry notice, does it come back, are good frames left alone?

Each splice of `faults_clips` goes through an engine of its own, frame by frame as from a live
camera. A pose after a fault is right when its motion since the last frame that was tracked before
it is, against the truth where there is one (in the unit that the uninterrupted run has), else
against that uninterrupted run itself. A frame in a new segment makes no claim about the old one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.faults_clips import Expect, Splice
from flow3r_ros.evaluation.faults_network import FaultyNetwork
from flow3r_ros.geometry.lie import invert, rigid, so3_exp
from flow3r_ros.geometry.motion import rotation_angle
from flow3r_ros.geometry.trajectory import Trajectory, nearest_stamp
from flow3r_ros.geometry.trajectory_alignment import align_poses
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.types import Estimate, Float64, Frame, Predictor, TrackingState

NOTICE_WITHIN = 2
RECOVER_WITHIN = 15
"""frames within which a fault must be noticed, and a known place recognised"""
WARM_UP = 10
"""frames at the start of a clip in which INITIALIZING is no false alarm"""
ROTATION_DEG, DEPTH_SHARE = 10.0, 0.3
"""a pose is right within this rotation and this share of the median depth, as for confident lies"""
UPSIDE_DOWN = rigid(so3_exp([0.0, 0.0, np.pi]), np.zeros(3))
MATCH_NS = 10_000_000
"""largest difference of the stamps of a frame and its true pose"""
INTRINSICS_WORD = "intrinsics"
"""what a reason must name when the intrinsics do not fit"""

Estimates = Mapping[int, Estimate]
"""by frame id; a frame that was dropped has none"""


@dataclass(frozen=True)
class Reference:
    """Camera-to-world poses by frame of the clip, in the unit of the uninterrupted run, and the
    median depth in that unit; `source` is truth or uninterrupted run."""

    poses: Mapping[int, Float64]
    median_depth: float
    source: str


@dataclass(frozen=True)
class Verdict:
    """What happened in one splice.

    `noticed` counts frames from the fault on (1 = at once, None = never); `right` is whether every
    pose that was claimed of the first NOTICE_WITHIN faulty frames was right; `lies` counts wrong
    poses that said TRACKING, from the fault to the end; `recovered` counts frames from the return
    (None = never, or no return); `alarms` is the share of frames that were not TRACKING after
    WARM_UP; `lost` counts frames without a pose; `passed` sums it up, `error` is what was raised.
    """

    fault: str
    expect: str
    passed: bool
    noticed: int | None = None
    right: bool | None = None
    lies: int = 0
    returns: bool = False
    recovered: int | None = None
    alarms: float = 0.0
    lost: int = 0
    reason: str = ""
    error: str = ""


def run_faults(
    cases: Sequence[Splice],
    predictor: Predictor,
    config: Config,
    truth: Trajectory | None = None,
    told: Callable[[Verdict], None] = lambda verdict: None,
) -> dict[str, Any]:
    """Run every splice; the first must be the clean control.

    Args:
        cases: what `faults_clips.splices` gave.
        predictor: the network; wrapped where the fault is the network's.
        config: the settings of the engine.
        truth: true poses of the clip, matched by stamp.
        told: gets each verdict as soon as it is there.

    Returns:
        `verdicts` (one dict a splice), `passed`, `faults` (counts, clean control aside),
        `false_alarms` (share of the clean control), `reference` (what poses were held against).

    Raises:
        EvaluationError: the clean control cannot be run, so that nothing can be judged.
    """
    clean = cases[0]
    if clean.expect is not Expect.NOTHING:
        raise EvaluationError("the first splice is not the clean control", "keep their order")
    uninterrupted = drive(clean, predictor, config)
    reference = reference_of(clean.frames, uninterrupted, truth)
    verdicts = [judge(clean, uninterrupted, reference)]
    told(verdicts[0])
    for case in cases[1:]:
        try:
            verdict = judge(case, drive(case, predictor, config), reference)
        except Exception as error:  # a crash is a verdict; the other faults are still asked
            why = f"{type(error).__name__}: {' '.join(str(error).split())}"
            verdict = Verdict(case.name, case.expect.value, False, error=why)
        verdicts.append(verdict)
        told(verdict)
    return {
        "verdicts": [vars(verdict) for verdict in verdicts],
        "passed": sum(verdict.passed for verdict in verdicts[1:]),
        "faults": len(verdicts) - 1,
        "false_alarms": verdicts[0].alarms,
        "reference": reference.source,
    }


def drive(case: Splice, predictor: Predictor, config: Config) -> dict[int, Estimate]:
    """The estimates of a splice by frame id, from an engine of its own. Raises what the engine
    raises."""
    predictor.reset()
    faulty = range(case.first, case.end)
    network = FaultyNetwork(predictor, case.network, faulty) if case.network else predictor
    with Engine(network, config) as engine:
        estimates = [estimate for frame in case.frames for estimate in engine.step(frame)]
        estimates += engine.finish()
    return {estimate.frame_id: estimate for estimate in estimates}


def reference_of(
    frames: Sequence[Frame], uninterrupted: Estimates, truth: Trajectory | None
) -> Reference:
    """What poses are held against. Raises EvaluationError when the uninterrupted run has no
    poses."""
    tracked = {id_: e for id_, e in uninterrupted.items() if e.tracking_state.has_pose}
    depths = [np.nanmedian(e.depth) for e in tracked.values() if np.isfinite(e.depth).any()]
    if not depths:
        raise EvaluationError("the uninterrupted clip gave no pose with depth", "give another clip")
    depth = float(np.median(depths))
    own = {id_: e.T_odom_cam for id_, e in tracked.items() if e.segment == 0}
    known = _true_poses(frames, truth) if truth is not None else {}
    shared = [id_ for id_ in own if id_ in known]
    try:
        estimated, true = (np.stack([side[id_] for id_ in shared]) for side in (own, known))
        scale = align_poses(estimated, true, "sim3").scale
    except (ValueError, EvaluationError):  # no truth, or nothing moves
        return Reference(own, depth, "uninterrupted run")
    unit = np.diag([1.0 / scale] * 3 + [1.0])
    return Reference(
        {id_: unit @ pose @ invert(unit) for id_, pose in known.items()}, depth, "truth"
    )


def judge(case: Splice, estimates: Estimates, reference: Reference) -> Verdict:
    """Hold the estimates of a splice against what they owe."""
    ids = range(len(case.frames))
    alarms = [not _tracking(estimates.get(id_)) for id_ in ids[WARM_UP:]]
    share = float(np.mean(alarms)) if alarms else 0.0
    lost = sum(not e.tracking_state.has_pose for e in estimates.values())
    said = next((e.reason for _, e in sorted(estimates.items()) if _says(case, e)), "")
    facts: dict[str, Any] = {"alarms": share, "lost": lost, "reason": said}
    if case.expect is Expect.NOTHING:
        blamed = any(INTRINSICS_WORD in e.reason for e in estimates.values())
        return Verdict(case.name, case.expect.value, share < 0.02 and not blamed, **facts)
    if case.expect is Expect.SAID:
        first = next((i for i in ids if i in estimates and _says(case, estimates[i])), None)
        noticed = None if first is None else first + 1
        return Verdict(case.name, case.expect.value, first is not None, noticed, **facts)
    anchor = next((i for i in reversed(range(case.first)) if _tracking(estimates.get(i))), None)
    if anchor is None:
        why = "nothing was tracked before the fault"
        return Verdict(case.name, case.expect.value, False, error=why, **facts)
    answers = {i: _answer(case, estimates, reference, anchor, i) for i in ids[case.first :]}
    faulty = range(case.first, case.end)
    noticed = next(
        (i - case.first + 1 for i in faulty if _noticed(case, estimates, anchor, i)), None
    )
    right = all(answers[i] is not False for i in faulty[:NOTICE_WITHIN])
    recovered = None
    if case.known is not None:
        back = (i for i in ids[case.known :] if answers[i])
        recovered = next((i - case.known + 1 for i in back), None)
    lies = sum(answer is False for answer in answers.values())
    returns = case.known is not None
    grace = int(noticed == NOTICE_WITHIN)
    on_time = noticed is not None and noticed <= NOTICE_WITHIN
    if case.expect is Expect.NOTICED_OR_RIGHT:
        on_time = on_time or right
    elif case.expect is Expect.HELD:
        on_time = lost == 0
    passed = on_time and lies <= grace
    passed &= not returns or (recovered is not None and recovered <= RECOVER_WITHIN)
    outcome = (passed, noticed, right, lies, returns, recovered)
    return Verdict(case.name, case.expect.value, *outcome, **facts)


def _answer(
    case: Splice, estimates: Estimates, reference: Reference, anchor: int, id_: int
) -> bool | None:
    """Whether a frame's claim is right; None where it makes none (not TRACKING, another segment,
    dropped) or nothing is known to hold it against."""
    estimate, start, shown = estimates.get(id_), estimates[anchor], case.shows[id_]
    if estimate is None or not _tracking(estimate) or estimate.segment != start.segment:
        return None
    if shown is None:
        return False
    seen = case.shows[anchor]
    from_ = None if seen is None else reference.poses.get(seen)
    to = reference.poses.get(shown)
    if from_ is None or to is None:
        return None
    expected = invert(from_) @ (to @ UPSIDE_DOWN if case.upside_down[id_] else to)
    said = invert(start.T_odom_cam) @ estimate.T_odom_cam
    turn = float(np.degrees(rotation_angle(expected[:3, :3].T @ said[:3, :3])))
    gap = float(np.linalg.norm(expected[:3, 3] - said[:3, 3]))
    return turn <= ROTATION_DEG and gap <= DEPTH_SHARE * reference.median_depth


def _noticed(case: Splice, estimates: Estimates, anchor: int, id_: int) -> bool:
    estimate = estimates.get(id_)
    if estimate is None or not _tracking(estimate):
        return True
    if estimate.segment != estimates[anchor].segment:
        return True
    before = estimates.get(id_ - 1)
    grown = before is not None and bool(
        (np.diag(estimate.covariance) > np.diag(before.covariance)).all()
    )
    return case.expect is Expect.GROWN and grown


def _says(case: Splice, estimate: Estimate) -> bool:
    """Whether the estimate gives the reason of interest: about the intrinsics, or at all since the
    fault."""
    if case.expect is Expect.SAID:
        return INTRINSICS_WORD in estimate.reason
    return bool(estimate.reason) and estimate.frame_id >= case.first


def _tracking(estimate: Estimate | None) -> bool:
    return estimate is not None and estimate.tracking_state is TrackingState.TRACKING


def _true_poses(frames: Sequence[Frame], truth: Trajectory) -> dict[int, Float64]:
    stamps = [int(stamp) for stamp in truth.stamps_ns]
    found = {frame.id: nearest_stamp(stamps, frame.stamp_ns, MATCH_NS) for frame in frames}
    return {id_: truth.poses[row] for id_, row in found.items() if row is not None}
