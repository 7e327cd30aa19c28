"""What happens once the network's answer is there: join its window to the odometry, let geometry
and network compete for the pose, complete the depth, follow the state, remember, publish.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.align import Known, fit_seam
from flow3r_ros.odometry.arbiter import GATE, TOLD_GATE, Choice, choose_pose
from flow3r_ros.odometry.assist import Assist, Track
from flow3r_ros.odometry.batch import Batch, Clock
from flow3r_ros.odometry.completion import complete_depth, propagate_depth
from flow3r_ros.odometry.depth import parallax_and_overlap
from flow3r_ros.odometry.mapper import BUNDLE, Mapper
from flow3r_ros.odometry.publisher import Publisher
from flow3r_ros.odometry.tracker import Tracker
from flow3r_ros.odometry.uncertainty import lost, pose_covariance
from flow3r_ros.odometry.views import View, ViewBuffer
from flow3r_ros.types import Estimate, PoseSource, Prediction, Seam, TrackingState

log = logging.getLogger(__name__)


class Settler:
    """Settles batches in order; owns what is remembered from frame to frame.

    `buffer` the keyframes and the previous frame, `mapper` their links, `tracker` state and motion,
    `publisher` scale and map; `seams` and `seams_refused` count windows; `anchor` is, while lost,
    the fresh view that may begin a new segment.
    """

    def __init__(self, config: Config, assist: Assist, told: bool) -> None:
        self.config = config
        self.buffer = ViewBuffer(max(config.engine.window, BUNDLE))
        self.mapper = Mapper(self.buffer, assist)
        self.tracker = Tracker(config.engine.lost_after)
        self.publisher = Publisher(config)
        self._gate = TOLD_GATE if told else GATE
        self.reset()

    def reset(self) -> None:
        """Nothing seen, nothing counted."""
        self.buffer.clear()
        self.mapper.clear()
        self.tracker.reset()
        self.publisher.reset()
        self.seams = self.seams_refused = 0
        self.anchor: View | None = None
        self._covariance = np.zeros((6, 6))

    def restart(self, reason: str, stamp_ns: int) -> None:
        """The stream changed for good: go on at `stamp_ns` from the last pose with nothing
        remembered."""
        self.buffer.clear()
        self.publisher.scale.restart_span(stamp_ns)
        self.publisher.begin_segment(reason)
        self.tracker.restart(stamp_ns)
        self.anchor = None

    def companions(self, count: int) -> list[View]:
        """Views the odometry knows; while lost, the place of the oldest goes to a fresh anchor."""
        if self.anchor is None:
            return self.buffer.companions(count)
        return [*self.buffer.companions(count - 1), self.anchor]

    def wants_keyframe(self, view: View) -> bool:
        """First frame, enough parallax, or too little overlap with the last keyframe."""
        if not self.buffer.keyframes:
            return True
        last, settings = self.buffer.keyframes[-1], self.config.engine
        with np.errstate(divide="ignore", invalid="ignore"):
            flow, overlap = parallax_and_overlap(
                1.0 / last.inverse_depth, invert(last.pose) @ view.pose, view.camera
            )
        return (
            flow > settings.keyframe_parallax * view.camera.width
            or overlap < settings.keyframe_overlap
        )

    def settle(self, batch: Batch, prediction: Prediction | None) -> Iterator[Estimate]:
        """Estimates of the batch's frames, in order; `prediction` None where the forward failed."""
        with batch.clock.stage("align"):
            seam, known = self._join(prediction)
        for view, track in zip(batch.views, batch.tracks, strict=True):
            yield self._settle(view, track, batch, prediction, seam, known)

    def _join(self, prediction: Prediction | None) -> tuple[Seam | None, dict[int, Known]]:
        """Seam of the window, from the keyframes or, while lost, from the anchor (which then begins
        a new segment)."""
        if prediction is None or not self.buffer.keyframes:
            return None, {}
        known = _known(self.buffer.keyframes, prediction)
        seam = fit_seam(prediction, known, self.config.engine)
        if not seam.accepted and self.anchor is not None:
            anchored = _known([self.anchor], prediction)
            retry = fit_seam(prediction, anchored, self.config.engine)
            if retry.accepted:
                self._begin_segment(self.anchor)
                seam, known = retry, anchored
        self.seams += seam.accepted
        self.seams_refused += not seam.accepted
        if not seam.accepted:
            log.warning(
                "seam of window ending at frame %d refused: %s",
                prediction.frame_ids[-1],
                seam.reason,
            )
        return seam, known

    def _begin_segment(self, anchor: View) -> None:
        log.warning("frame %d begins a new segment: the old one is out of sight", anchor.id)
        self.buffer.clear()
        self.buffer.add_keyframe(anchor)
        self.publisher.scale.restart_span(anchor.frame.stamp_ns)
        self.publisher.begin_segment("lost: the old segment is out of sight")
        self.anchor = None

    def _settle(
        self,
        view: View,
        track: Track | None,
        batch: Batch,
        prediction: Prediction | None,
        seam: Seam | None,
        known: dict[int, Known],
    ) -> Estimate:
        """Choose the pose, complete the depth, follow the state, remember and publish one frame."""
        clock: Clock = batch.clock
        with clock.stage("pose"):
            choice = self._choose(view, track, prediction, seam, known)
            view.pose, view.seam = choice.pose, seam
        keyframe = choice.trusted and batch.onward is None and self.wants_keyframe(view)
        geometric = None if track is None else track.depth
        if track is not None and choice.pose is not track.pose:
            with clock.stage("assist"):
                geometric = propagate_depth(view, track, 0)
        with clock.stage("depth"):
            complete_depth(view, geometric, prediction, seam, self.publisher.median_depth)
        if keyframe:
            with clock.stage("bundle"):
                self.mapper.remember(view, track, choice.source)
        if batch.onward is None:
            view.expected = view.pose
        state = self._follow(view, choice, seam)
        self._covariance = lost() if state is TrackingState.LOST else choice.covariance
        if choice.source is not PoseSource.STATIONARY:
            self.buffer.previous = view
        ids = tuple(frame.id for frame in batch.window.frames)
        with clock.stage("cloud"):
            estimate = self.publisher.publish(
                view, self._covariance, state, choice.source, keyframe, ids
            )
        return replace(estimate, stage_ms=dict(clock.milliseconds))

    def _choose(
        self,
        view: View,
        track: Track | None,
        prediction: Prediction | None,
        seam: Seam | None,
        known: dict[int, Known],
    ) -> Choice:
        predicted, depth = (
            self.tracker.motion.predict(view.frame.stamp_ns),
            self.publisher.median_depth or 1.0,
        )
        if not self.buffer.keyframes:
            return Choice(predicted, PoseSource.FIRST, pose_covariance(np.zeros((6, 6)), depth))
        return choose_pose(
            view, track, prediction, seam, known, predicted, self._covariance, depth, self._gate
        )

    def _follow(self, view: View, choice: Choice, seam: Seam | None) -> TrackingState:
        """State after this frame; while lost, every `lost_after` frames a fresh view may begin a
        new segment."""
        sure = (
            seam is None
            or seam.accepted
            or choice.source in (PoseSource.STATIONARY, PoseSource.FIRST)
        )
        state = self.tracker.update(view.pose, view.frame.stamp_ns, choice.trusted, sure)
        overdue = self.tracker.untrusted - self.config.engine.lost_after
        if choice.trusted:
            self.anchor = None
        elif overdue >= 0 and overdue % self.config.engine.lost_after == 0:
            self.anchor = view
        return state


def _known(views: list[View], prediction: Prediction) -> dict[int, Known]:
    height, width = prediction.confidence.shape[1:]
    return {
        view.id: Known(view.pose, view.depth_on_grid(width, height))
        for view in views
        if view.id in prediction.frame_ids
    }
