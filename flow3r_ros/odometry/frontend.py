"""The front end: every frame gets its pose, verdict and depth at once, from the latest keyframe.

Owns the motion, the choice of keyframes, and what is followed; `Tracker` measures, `Verifier`
judges, `Relocaliser` finds remembered places. The back end's keyframes come in through `join`.
"""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.config import Config
from flow3r_ros.geometry.camera_pose import PosePrior
from flow3r_ros.geometry.depth_map import DepthMap, unknown
from flow3r_ros.geometry.lie import invert, rigidified
from flow3r_ros.odometry.backend import Built, Order
from flow3r_ros.odometry.corners import Reference, Tracked
from flow3r_ros.odometry.focal import misfit
from flow3r_ros.odometry.inertial import InertialUnit
from flow3r_ros.odometry.motion import at_rest
from flow3r_ros.odometry.output import Settled
from flow3r_ros.odometry.promotion import (
    MIN_GAP,
    as_place,
    first_order,
    keyframe_due,
    patience_ns,
    promoted,
    seen_corners,
    seen_through,
)
from flow3r_ros.odometry.relocalisation import Relocaliser
from flow3r_ros.odometry.tracking import Tracker
from flow3r_ros.odometry.uncertainty import (
    Drift,
    bridgeable,
    handed_on,
    in_world,
    lost,
    misfit_px,
    of_information,
    step_covariance,
    unseen,
)
from flow3r_ros.odometry.verification import (
    STRONG_AGREEMENT,
    Verdict,
    Verifier,
    examine,
    informative,
    judge,
    recognised,
    sure_by_features,
)
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float32, Float64, PoseSource, TrackingState

log = logging.getLogger(__name__)

START_PARALLAX_PX = 4.0
"""pixels of parallax after which a segment's second keyframe is due: with one keyframe alone dense
depth is a guess from one picture"""
YOUNG = 5
"""keyframes of a segment before one may wait for another: so few measure little of the depth"""
GIVE_UP_AFTER = 20
"""frames that show something without a believed pose, after which a new segment begins"""


class FrontEnd:
    """See the module; `relocalisations` counts recognised places, `keyframes` those of the segment,
    `wants_join` is whether the next keyframe waits for the one being built; `inertial` takes what
    an inertial unit says."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._corners = config.tracking.corners
        self._tracker = Tracker()
        self._verifier = Verifier(config.engine.lost_after)
        self._relocaliser = Relocaliser(config.engine.keyframes)
        self.inertial = InertialUnit()
        self.reset()

    def reset(self) -> None:
        """Nothing seen yet."""
        self.relocalisations = 0
        self.inertial.restart()
        self._motion = at_rest(np.eye(4), 0)
        self.begin_segment()
        self._covariance = np.zeros((6, 6))

    def begin_segment(self) -> None:
        """Forget what is followed and remembered; the next frame begins a new world at the latest
        pose: `odom` never jumps, but where it is there nobody knows any more."""
        self._tracker.reset()
        self._verifier.reset()
        self._relocaliser.clear()
        self._motion = at_rest(self._motion.pose, 0)
        self._tracked: Tracked | None = None
        self._seen: View | None = None
        self._covariance, self._drift = lost(), Drift()
        self._place = self._motion.pose[:3, 3]
        self._next_id = self._since = self._unseen_informative = self.keyframes = 0
        self._keyframe_ns, self._unseen_s = 0, 0.0
        self.wants_join = False
        self._trouble = self._remark = self._misfit = ""

    @property
    def gives_up(self) -> bool:
        """Whether the pictures have shown an unknown place for so long that a new segment is
        due."""
        return self._unseen_informative >= GIVE_UP_AFTER

    @property
    def unbelieved(self) -> int:
        """Frames since the last pose that was believed."""
        return self._verifier.unbelieved

    @property
    def corners(self) -> tuple[NDArray[np.int64], Float32]:
        """Where the latest frame saw corners (`promotion.seen_corners`); none at a new keyframe."""
        return seen_corners(self._tracked, self._tracker.reference)

    @property
    def waits_for_first(self) -> bool:
        """Whether there is no keyframe to go on from yet."""
        return self._tracker.reference is None

    # --- one frame --------------------------------------------------------------------------------

    def settle(self, view: View, busy: bool) -> Settled:
        """Pose, verdict and depth of a frame; `busy` is whether the back end builds a keyframe."""
        reference = self._tracker.reference
        if reference is None:
            self._tracker.start(view)
            return self._nothing_yet(view)
        self._since += 1
        stamp, seconds = view.frame.stamp_ns, self._seconds_to(view)
        turn = self.inertial.turn(self._motion.stamp_ns, stamp)
        view, self._motion = replace(view, turn=turn), self._motion.turning(turn, stamp)
        predicted = invert(reference.pose) @ self._motion.predict(stamp)
        information = self._motion.prior(stamp, reference.median_depth)
        prior = None if information is None else PosePrior(predicted, information)
        tracked = self._tracker.track(view, predicted, prior)
        self.wants_join = False
        if tracked is not None:
            depth, came_from, verdict = examine(view, tracked, reference, predicted)
            if not verdict.believed and informative(view.tracking):
                anew = self._tracker.track_anew(view, predicted, prior)
                if anew is not None:
                    tracked = anew
                    depth, came_from, verdict = examine(view, tracked, reference, predicted)
            if turn is not None and tracked.fit is not None and not self._verifier.unbelieved:
                step = invert(self._motion.pose) @ reference.pose @ tracked.T_ref_cam
                verdict = self.inertial.beside(verdict, turn, step[:3, :3], seconds)
            if verdict.believed:
                return self._believed(view, tracked, reference, depth, came_from, verdict, busy)
        else:
            verdict = judge(view, None, None, None, None, predicted)
        return self._bridged(view, reference, verdict, seconds, busy)

    def _nothing_yet(self, view: View) -> Settled:
        """The first frame of a segment becomes a keyframe, once it shows something."""
        start = self.inertial.first_pose(self._motion.pose)
        self._motion = at_rest(start, view.frame.stamp_ns)
        shows = informative(view.tracking)
        reason = "" if shows else "the picture shows nothing"
        height, width = view.gray[::2, ::2].shape
        return Settled(
            view, self._motion.pose, self._covariance, np.zeros((6, 6)), None, 0.0,
            unknown(height, width), np.zeros((height, width), np.bool_),
            TrackingState.INITIALIZING, PoseSource.FIRST, reason, keyframe=shows,
        )  # fmt: skip

    def first(self, view: View) -> Settled:
        """The first frame of a segment, once its keyframe is built."""
        reference = self._tracker.reference
        assert reference is not None
        return Settled(
            view, reference.pose, self._covariance, np.zeros((6, 6)), None, 0.0,
            reference.depth.every_second(), reference.moving[::2, ::2],
            TrackingState.INITIALIZING, PoseSource.FIRST, "", True, 1,
        )  # fmt: skip

    def _believed(
        self,
        view: View,
        tracked: Tracked,
        reference: Reference,
        depth: DepthMap,
        came_from: Float32,
        verdict: Verdict,
        busy: bool,
    ) -> Settled:
        assert tracked.fit is not None
        pose = rigidified(reference.pose @ tracked.T_ref_cam)
        stamp, seconds = view.frame.stamp_ns, self._seconds_to(view)
        fresh = self._verifier.unbelieved > 0
        state = self._verifier.accept(verdict)
        self._motion = at_rest(pose, stamp) if fresh else self._motion.through(pose, stamp)
        self._tracker.learn(tracked)
        earlier, self._tracked = self._tracked, tracked
        self._seen = view if state is TrackingState.TRACKING else None
        self._unseen_informative, self._unseen_s = 0, 0.0
        typical = reference.median_depth
        off = misfit_px(self._tracker.shared)
        measured = self._tracker.scatter * of_information(tracked.fit.information)
        drift, more = self._drift.through(reference.view.id, tracked.T_ref_cam, off, typical)
        step = in_world(step_covariance(measured, typical, off), pose[:3, :3]) + drift
        before, self._place = self._place, pose[:3, 3]
        self._covariance = handed_on(self._covariance, self._place - before) + step + more
        if fresh:  # the keyframe knows where it is; only the pose before this one did not
            step = step + unseen(seconds, typical)
        reason, self._remark = self._remark or self._verifier.reason, ""
        if self._trouble:
            state, reason, self._trouble = TrackingState.DEGRADED, self._trouble, ""
        wanted = state is TrackingState.TRACKING and self._wants_keyframe(
            tracked, reference, verdict.likeness
        )
        young = self.keyframes < YOUNG
        patience = 0 if young else patience_ns(tracked, earlier, verdict.likeness)
        self.wants_join = wanted and busy and stamp - self._keyframe_ns >= patience
        keyframe = wanted and not busy
        self.keyframes += keyframe
        return Settled(
            view, pose, self._covariance, step, self._motion.velocity * 1e9, seconds, depth,
            seen_through(reference.moving, came_from), state, PoseSource.PNP, reason, keyframe,
            self.keyframes,
        )  # fmt: skip

    def _bridged(
        self, view: View, reference: Reference, verdict: Verdict, seconds: float, busy: bool
    ) -> Settled:
        """A frame whose tracked pose nothing confirms: remembered places are tried, else motion
        goes on. The nearest places are the last frame and the keyframe being built."""
        self.wants_join = busy
        last = as_place(self._seen, reference, self._tracked, self._motion.pose)
        if last is not None:
            self._relocaliser.remember_latest(last)
        shows = informative(view.tracking)
        # corners that agree on another pose speak against a place that merely looks alike
        contested = verdict.agreement >= STRONG_AGREEMENT
        found = self._recognised(view) if shows and not contested else None
        if found is not None:
            place, tracked, depth, came_from, believed = found
            self._tracker.follow(place, tracked.T_ref_cam, tracked)
            self._since = MIN_GAP
            settled = self._believed(view, tracked, place, depth, came_from, believed, busy)
            return replace(settled, source=PoseSource.RELOCALISED)
        typical = reference.median_depth
        self._unseen_informative += shows
        self._unseen_s += seconds
        state = self._verifier.accept(verdict, bridgeable(self._unseen_s))
        self._motion = self._motion.bridged(view.frame.stamp_ns)
        pose = self._motion.pose
        self._tracker.follow(reference, invert(reference.pose) @ pose)
        self._tracked = None
        covariance = self._covariance + unseen(self._unseen_s, typical)
        depth, came_from = reference.seen_from(view, invert(reference.pose) @ pose)
        return Settled(
            view, pose, lost() if state is TrackingState.LOST else covariance,
            unseen(seconds, typical), None, seconds, depth,
            seen_through(reference.moving, came_from), state, PoseSource.PREDICTED, verdict.reason,
            keyframes=self.keyframes,
        )  # fmt: skip

    def _recognised(
        self, view: View
    ) -> tuple[Reference, Tracked, DepthMap, Float32, Verdict] | None:
        """A remembered place that a view shows and the verifier believes."""
        found = self._relocaliser.find(view)
        if found is None or not recognised(found.judged, found.fit.inliers):
            return None
        place, fit = found.reference, found.fit
        tracked = self._tracker.look(view, place, fit.T)
        depth, came_from, verdict = examine(view, tracked, place, None)
        if not verdict.believed:  # the corners look too different from there; the features may not
            if not sure_by_features(fit, place.median_depth, verdict.likeness):
                return None
            tracked = replace(tracked, T_ref_cam=fit.T, fit=fit)
            depth, came_from = place.seen_from(view, fit.T)
            verdict = replace(verdict, believed=True, reason="")
        log.info("frame %d: keyframe %d recognised", view.id, place.view.id)
        self.relocalisations += self._verifier.state is TrackingState.LOST
        return place, tracked, depth, came_from, verdict

    def repeat(self, view: View) -> tuple[TrackingState, str, Float64]:
        """State, reason and what nobody saw, `[6, 6]`, for a picture that came again."""
        reference = self._tracker.reference
        typical = 1.0 if reference is None else reference.median_depth
        seconds = self._seconds_to(view)
        before, self._unseen_s = self._unseen_s, self._unseen_s + seconds
        grown = unseen(self._unseen_s, typical) - unseen(before, typical)
        self._motion = self._motion.standing(view.frame.stamp_ns)
        state = self._verifier.hold(self._motion.moves(typical))
        return state, self._verifier.reason, grown

    def _seconds_to(self, view: View) -> float:
        return max(view.frame.stamp_ns - self._motion.stamp_ns, 0) * 1e-9

    # --- keyframes --------------------------------------------------------------------------------

    def _wants_keyframe(self, tracked: Tracked, reference: Reference, likeness: float) -> bool:
        """Whether one is due; a segment's second one is as soon as there is parallax."""
        second = self.keyframes == 1 and self._tracker.parallax_px > START_PARALLAX_PX
        return second or keyframe_due(
            tracked, reference, likeness, self._since, self._config.engine
        )

    def order(self, view: View) -> Order:
        """The keyframe of a frame that was just settled; the front end goes on from it at once,
        with what it knows."""
        reference, tracked = self._tracker.reference, self._tracked
        sigma_px = self._tracker.judged_px
        if reference is None or tracked is None:
            order = first_order(view, self._motion.pose, self._corners, sigma_px)
        else:
            order, provisional = promoted(
                view, reference, tracked, self._motion.pose, self._next_id, self._corners, sigma_px
            )
            self._tracker.follow(provisional, np.eye(4))
        self._next_id += len(order.new_ids)
        self._tracked, self._since, self._keyframe_ns = None, 0, view.frame.stamp_ns
        return order

    def join(self, built: Built) -> None:
        """Take in a keyframe that the back end has built."""
        reference, followed = built.reference, self._tracker.reference
        self._relocaliser.remember(reference, built.features)
        given = not reference.view.lens.estimated
        wrong = misfit(built.focal, built.focal_sigma) if given else ""
        if wrong and not self._misfit:
            log.warning("%s", wrong)
            self._remark = wrong
        self._misfit = wrong
        self._drift.refocus(built.focal_sigma)
        if followed is None:
            self.keyframes = 1
            self._tracker.follow(reference, np.eye(4))
        elif followed.view.id == reference.view.id:  # else another place is followed meanwhile
            T_ref_cam = invert(followed.pose) @ self._motion.pose
            self._tracker.follow(reference, T_ref_cam, self._tracked)
            self._motion = self._motion.moved_to(reference.pose @ T_ref_cam)

    def backend_failed(self) -> None:
        """The back end lost a keyframe: what is followed goes on, and the next frame says so."""
        self._trouble = "the back end failed and starts anew"
        self.wants_join = False
