"""May a pose be believed? The only giver of TRACKING.

Two kinds of evidence that no pose was found with: the corners that were held back, which must be
seen where the pose puts them, and the picture itself, which must look like the keyframe warped by
depth and pose. A camera that sees nothing offers neither, and a pose that repeats a prediction
explains neither. A jump that the motion before does not lead to needs more of both. What is not
believed is bridged: DEGRADED at once, LOST after `lost_after` frames or when motion says no more.

The verifier owns the state.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.camera_pose import PoseFit
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.flow import sample
from flow3r_ros.geometry.lie import invert, rotation_angle
from flow3r_ros.odometry.corners import Reference, Tracked
from flow3r_ros.odometry.uncertainty import of_information
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64, TrackingState, UInt8

WITHIN = 3.0
"""sigmas from the pose within which a held-back corner speaks for it"""
MIN_WITNESSES = 6
"""held-back corners that must speak for a pose"""
AGREEMENT, JUMP_AGREEMENT = 0.1, 0.2
"""share of the held-back corners that the pose puts into the picture which must speak for it; more
for a jump. On seven clips of five kinds right poses have .23 or more (2 % quantile), pictures of
another film .02 or less"""
LIKENESS, JUMP_LIKENESS = 0.2, 0.35
"""correlation of the picture with the warped keyframe that a pose needs; more for a jump. On the
same clips right poses have .4 or more, another film .05 or less"""
JUMP_ANGLE, JUMP_SHIFT = 0.12, 0.12
"""rad, and share of the median depth, off the predicted pose that make a jump"""
STRONG_AGREEMENT, CONTRADICTED = 0.35, 0.05
"""share of the held-back corners from which on the picture need not look alike (its depth may be
wrong), as long as it does not contradict"""
RECOGNISED = 0.4
"""share of the held-back feature matches that must speak for a remembered place"""
EXPLAINED, FEW, EXPLAINED_BY_FEW = 0.6, 12, 0.75
"""share of the other matches that the pose there must explain, and the share where fewer than FEW
of the held-back ones speak: half of them can agree on a wrong one, since depths are hardly known.
Chosen on nerf_fox_50, whose two wrong places, off by 46 and 18 degrees, explain .52 and .70 with 8
and 9 witnesses, and on the returns of KITTI after a fault"""
OPEN_SHIFT, OPEN_TURN = 0.01, np.radians(0.5)
"""1-sigma of a place that its features leave open, median depths and rad, below which the picture
need not look alike there. Where a highway (carnd_highway) or a street (camvid_0016E5_15hz) was
taken for another piece of it, .018 to .08 were open and the likeness was .24 or less; of some
fifty right places on ten clips three have neither (.016 to .07 open, likeness .27 to .31)"""
MIN_PIXELS = 200
"""textured pixels that must be seen by both for a comparison of pictures"""
MIN_DETAIL = 1.2
"""gray levels of fine structure below which a picture shows nothing: sensor noise stays below it"""


@dataclass(frozen=True)
class Verdict:
    """Whether a pose is believed, why not, and the evidence: the share of held-back corners that
    agree and the correlation of the pictures (NaN: nothing to compare)."""

    believed: bool
    reason: str
    agreement: float
    likeness: float


class Verifier:
    """Judges poses and follows the state from frame to frame."""

    def __init__(self, lost_after: int) -> None:
        self._lost_after = lost_after
        self.reset()

    def reset(self) -> None:
        """Nothing seen yet."""
        self.state = TrackingState.INITIALIZING
        self.reason = ""
        self.unbelieved = 0

    def accept(self, verdict: Verdict, bridgeable: bool = True) -> TrackingState:
        """Take the verdict on a frame; the state after it. `bridgeable` is whether motion alone
        still says where the camera is: if not, it is lost without a verdict that it is right."""
        self.reason = verdict.reason
        self.unbelieved = 0 if verdict.believed else self.unbelieved + 1
        if verdict.believed and self.state is TrackingState.LOST:
            self.state, self.reason = (
                TrackingState.RELOCALIZING,
                "a remembered place, not yet confirmed",
            )
        elif verdict.believed:
            self.state = TrackingState.TRACKING
        elif self.unbelieved >= self._lost_after or not bridgeable:
            self.state = TrackingState.LOST
        else:
            self.state = TrackingState.DEGRADED
        return self.state

    def hold(self, moving: bool) -> TrackingState:
        """A picture came again: nothing is known about the time since. A camera that moved does not
        freeze, so there the picture is not believed for long."""
        self.reason = "the picture repeats"
        if moving and self.state is TrackingState.TRACKING:
            self.unbelieved += 1
            if self.unbelieved >= 2:
                self.state = TrackingState.DEGRADED
        return self.state


def judge(
    view: View,
    tracked: Tracked | None,
    reference: Reference | None,
    came_from: Float32 | None,
    seen: Bool | None,
    predicted: Float64 | None,
) -> Verdict:
    """Verdict on a tracked pose.

    Args:
        came_from: float32 `[h, w, 2]` where every second pixel of the depth grid lies in the
            keyframe's, by depth and pose; `seen` bool `[h, w]` where that is known.
        predicted: pose `[4, 4]` of the frame in the keyframe, by motion alone; None: motion leads
            nowhere, so that any pose is a jump.
    """
    if not informative(view.tracking):
        return Verdict(False, "the picture shows nothing", 0.0, float("nan"))
    if tracked is None or reference is None or came_from is None or seen is None:
        return Verdict(False, "no keyframe to follow", 0.0, float("nan"))
    speaking = int(np.count_nonzero(tracked.judged < WITHIN))
    agreement = speaking / max(tracked.asked, 1)
    likeness = picture_likeness(view.gray, reference.view.gray, came_from, seen)
    if tracked.fit is None:
        return Verdict(False, "too few corners were seen again", agreement, likeness)
    jump = predicted is None or _is_jump(tracked, reference, predicted)
    needed, alike = (JUMP_AGREEMENT, JUMP_LIKENESS) if jump else (AGREEMENT, LIKENESS)
    if speaking < MIN_WITNESSES or agreement < needed:
        what = (
            "a jump that too few corners confirm" if jump else "the corners do not confirm the pose"
        )
        return Verdict(False, what, agreement, likeness)
    if not likeness >= (CONTRADICTED if agreement >= STRONG_AGREEMENT else alike):
        what = (
            "a jump that the picture does not confirm"
            if jump
            else "the picture does not confirm the pose"
        )
        return Verdict(False, what, agreement, likeness)
    return Verdict(True, "", agreement, likeness)


def examine(
    view: View, tracked: Tracked, reference: Reference, predicted: Float64 | None
) -> tuple[DepthMap, Float32, Verdict]:
    """Depth of a frame at a tracked pose and where its pixels come from (`Reference.seen_from`),
    and the verdict; `predicted` as for `judge`."""
    depth, came_from = reference.seen_from(view, tracked.T_ref_cam)
    seen = np.isfinite(depth.inverse)
    return depth, came_from, judge(view, tracked, reference, came_from, seen, predicted)


def confirmed(judged: Float64) -> bool:
    """Whether the features held back from a pose, `judged` `[M]` in sigmas, speak for it."""
    speaking = int(np.count_nonzero(judged < WITHIN))
    return speaking >= MIN_WITNESSES and speaking >= RECOGNISED * len(judged)


def recognised(judged: Float64, explained: float) -> bool:
    """Whether a pose in a remembered place is believed by its features alone: those held back from
    it, `judged` `[M]` in sigmas, and the share of the others that it explains."""
    few = int(np.count_nonzero(judged < WITHIN)) < FEW
    return confirmed(judged) and explained >= (EXPLAINED_BY_FEW if few else EXPLAINED)


def sure_by_features(fit: PoseFit, median_depth: float, likeness: float) -> bool:
    """Whether a pose that features gave and the corners do not confirm is believed: it is settled
    by them, or the picture looks as much like the keyframe there as after a jump."""
    variance = np.diag(of_information(fit.information))
    shift, turn = np.sqrt(variance[:3].sum()) / median_depth, np.sqrt(variance[3:].sum())
    return bool(likeness >= JUMP_LIKENESS or (shift < OPEN_SHIFT and turn < OPEN_TURN))


def informative(gray: UInt8) -> bool:
    """Whether a picture shows anything: fine structure beyond what noise leaves after smoothing, in
    at least a hundredth of it."""
    half = cv2.resize(gray, None, fx=0.25, fy=0.25, interpolation=cv2.INTER_AREA)
    detail = cv2.absdiff(half, cv2.blur(half, (7, 7)))
    return float(np.percentile(detail, 97)) >= 4.0 * MIN_DETAIL


def picture_likeness(gray: UInt8, other: UInt8, came_from: Float32, seen: Bool) -> float:
    """Correlation of a picture with another one warped onto it, over textured pixels that both see;
    fine structure alone, so neither exposure nor a common gradient counts. NaN with too few.

    `came_from` `[h, w, 2]` and `seen` `[h, w]` are of every second pixel of the picture."""
    mine = _structure(gray)[::2, ::2]
    theirs = sample(_structure(other), came_from)
    keep = seen & ((np.abs(mine) > 2.0) | (np.abs(theirs) > 2.0))
    if np.count_nonzero(keep) < MIN_PIXELS:
        return float("nan")
    a, b = mine[keep], theirs[keep]
    a, b = np.clip(a, -40, 40), np.clip(b, -40, 40)
    norm = float(np.sqrt(np.sum(a * a) * np.sum(b * b)))
    return float(np.sum(a * b)) / norm if norm > 0 else float("nan")


def _structure(gray: UInt8) -> Float32:
    """A picture without what is smooth over 15 pixels, a little blurred: half a pixel of error is
    no disagreement."""
    smooth = cv2.GaussianBlur(gray.astype(np.float32), (0, 0), 1.0)
    return np.asarray(smooth - cv2.blur(smooth, (15, 15)), np.float32)


def _is_jump(tracked: Tracked, reference: Reference, predicted: Float64) -> bool:
    step = invert(predicted) @ tracked.T_ref_cam
    depth = 1.0 / max(float(np.median(reference.points.inverse)), 1e-9)
    shift = float(np.linalg.norm(step[:3, 3]))
    return rotation_angle(step[:3, :3]) > JUMP_ANGLE or shift > JUMP_SHIFT * depth
