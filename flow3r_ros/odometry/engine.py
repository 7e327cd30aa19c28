"""The window odometry: frames in, estimates out; every frame gets one or is counted as dropped with
a reason.

The way of one frame: admit it, match it against what is remembered, send its window to the network,
and settle it once the answer is there (`settler`). Where the next frame does not depend on that
answer, because this one stands or moves as geometry says and will not become a keyframe, `feed`
matches the next one while the network is still at work; `step` waits. Both give the same estimates.
Torch-free and ROS-free; what comes out depends on the frames alone, never on timing.

World: the optical frame of the first camera. Unit: what the network said of the first frame, until
`scale` knows better.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.errors import FrameError
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.odometry.admission import Admission, same_picture
from flow3r_ros.odometry.assist import Assist, Track
from flow3r_ros.odometry.batch import Batch, Clock, Start
from flow3r_ros.odometry.cloud import VoxelMap
from flow3r_ros.odometry.completion import propagate_depth
from flow3r_ros.odometry.focal import HELD, find_camera, with_camera
from flow3r_ros.odometry.forward import Forward
from flow3r_ros.odometry.prior import window_evidence
from flow3r_ros.odometry.scale import Scale
from flow3r_ros.odometry.settler import Settler
from flow3r_ros.odometry.tracker import Motion
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Camera, Estimate, Evidence, Frame, Predictor, Segment, Window

log = logging.getLogger(__name__)

SEAM_FRAMES = 2
"""shared frames of a window whose geometry joins it to the odometry"""


class Engine:
    """Monocular odometry around a geometry network.

    `frames_in`, `drops` (reason -> count), `seams`, `seams_refused`, `windows_failed`,
    `tracking_states` and `pose_sources` count what happened; `map` is the voxel map in output
    units, None before the first keyframe.
    """

    def __init__(self, predictor: Predictor, config: Config) -> None:
        self.predictor = predictor
        self.config = config
        self._admission = Admission(config.assist.width)
        self._assist = Assist(config.assist)
        self._settler = Settler(config, self._assist, told=predictor.uses_evidence)
        self._buffer = self._settler.buffer
        self._forward = Forward(predictor)
        self.frames_in = self.windows_failed = 0
        self.drops: Counter[str] = Counter()
        self._held: list[View] = []
        self._waiting: list[View] = []
        self._samples: list[tuple[int, np.ndarray]] = []
        self._batch: Batch | None = None
        self._onward: Motion | None = None
        self._retried = False
        self._begin()

    @property
    def scale(self) -> Scale:
        """Factor, state and sigma of the output's unit."""
        return self._settler.publisher.scale

    @property
    def map(self) -> VoxelMap | None:
        """The voxel map in output units; None before the first keyframe."""
        return self._settler.publisher.map

    @property
    def tracking_states(self) -> Counter[str]:
        """Estimates per tracking state."""
        return self._settler.publisher.tracking_states

    @property
    def pose_sources(self) -> Counter[str]:
        """Estimates per winning pose candidate."""
        return self._settler.publisher.pose_sources

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of the trajectory, oldest first; `Estimate.segment` counts them from 0."""
        return tuple(self._settler.publisher.segments)

    @property
    def assumed_camera(self) -> Camera | None:
        """The pinhole of the full image that was found for frames without a camera; None when they
        have one."""
        return None if self._admission.given is not None else self._admission.assumed

    @property
    def seams(self) -> int:
        """Windows joined to the odometry."""
        return self._settler.seams

    @property
    def seams_refused(self) -> int:
        """Windows whose seam missed the limits."""
        return self._settler.seams_refused

    def step(self, frame: Frame) -> list[Estimate]:
        """Take the next frame; returns the estimates that are ready, oldest first (usually one, for
        this frame).

        A frame waits for the next call when its forward failed, until its chunk is full (chunked
        mode), or, at the start of a stream without a camera, until the focal length is settled
        (`odometry.focal`). Raises CameraError for impossible intrinsics; bad frames do not raise,
        they are counted in `drops`.
        """
        return [*self.feed(frame), *self.settle()]

    def feed(self, frame: Frame) -> Iterator[Estimate]:
        """Like `step`, for whoever has the next frame at hand: this one may stay at the network
        until the next call, or `finish`.

        Yields the estimates that `step` would, in the same order; must be used up before the next
        call.
        """
        self.frames_in += 1
        clock = Clock()
        try:
            with clock.stage("rectify"):
                view = self._admission.admit(frame)
        except FrameError as error:
            yield from self.settle()
            self.drops[error.reason] += 1
            log.warning("frame %d dropped (%s): %s", frame.id, error.reason, error)
            return
        if self._admission.restarted:
            yield from self._restart(self._admission.restarted, frame.stamp_ns)
        if self._admission.given is None and self._admission.assumed is None:
            self._held.append(view)
            if len(self._held) >= HELD:
                yield from self._release()
        else:
            yield from self._advance(view, clock)

    def finish(self) -> list[Estimate]:
        """Estimates of frames still on their way; the engine can go on afterwards."""
        return list(self._flush())

    def reset(self) -> None:
        """Start anew: world, scale, map, counters and the network's memory."""
        if self._batch is not None:
            self._batch.answer.result()
        self._admission.reset()
        self._assist.reset()
        self._settler.reset()
        self.predictor.reset()
        self._begin()

    def add_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A wheel-odometry pose `[4, 4]` in metres, later than every frame given; used when
        `scale.source` is `odometry`."""
        if self._batch is None:
            self.scale.add_odometry(stamp_ns, T_odom_base)
        else:
            self._samples.append((stamp_ns, T_odom_base))

    # --- new frames -------------------------------------------------------------------------------

    def _release(self) -> Iterator[Estimate]:
        """Settle the unknown camera and let the frames through that waited for it."""
        held, self._held = self._held, []
        matcher = Matcher(self.config.assist.width) if self.config.assist.enabled else None
        camera = find_camera(held, self.predictor, matcher)
        self._admission.assumed = camera
        for view in held:
            yield from self._advance(with_camera(view, camera), Clock())
        yield from self.settle()

    def _advance(self, view: View, clock: Clock) -> Iterator[Estimate]:
        """Repeat the last estimate for a repeated picture, otherwise send the waiting frames on
        once there are enough."""
        if self._batch is not None and self._batch.onward is None:
            yield from self.settle()
        previous = self._previous()
        repeated = previous is not None and same_picture(view.gray, previous.gray)
        if repeated:
            yield from self.settle()
        again = self._settler.publisher.repeat(view) if repeated and not self._waiting else None
        if again is not None:
            yield replace(again, stage_ms=dict(clock.milliseconds))
            return
        self._waiting.append(view)
        if len(self._waiting) >= self._enough():
            yield from self._send(clock)

    def _enough(self) -> int:
        """New frames that go through the network together."""
        if self.config.engine.mode == "online" or not self._buffer.keyframes:
            return 1
        return min(self.config.engine.stride, self.config.engine.window - 1)

    def _previous(self) -> View | None:
        """The frame before the next one; one at rest does not replace the one before it."""
        track = None if self._batch is None else self._batch.tracks[-1]
        if self._batch is None or (
            track is not None and track.still is not None and self._buffer.previous is not None
        ):
            return self._buffer.previous
        return self._batch.views[-1]

    def _send(self, clock: Clock) -> Iterator[Estimate]:
        """Match the waiting frames and send them to the network; then settle the batch before them,
        whose answer comes first."""
        views, self._waiting = self._waiting, []
        batch = self._matched(views, clock)
        yield from self.settle()
        if self._waiting:  # the forward of the frames before failed: once more, together
            views, self._waiting = [*self._waiting, *views], []
            batch = self._matched(views, clock)
        self._batch, self._onward = batch, batch.onward

    def _matched(self, views: list[View], clock: Clock) -> Batch:
        """Correspondences, evidence and the request to the network for new frames."""
        start = Start(self._assist.memory, self._onward or self._settler.tracker.motion)
        encoded = [self._forward.prepare(view.frame) for view in views]
        with clock.stage("assist"):
            tracks = self._track(views, start.motion)
        with clock.stage("evidence"):
            window = self._window(views, tracks)
        answer = self._forward.predict(window, encoded)
        onward = (
            start.motion.through(views[0].expected, views[0].frame.stamp_ns)
            if self._is_plain(views, tracks)
            else None
        )
        return Batch(views, tracks, window, answer, start, onward, clock, self.frames_in)

    def _track(self, views: list[View], motion: Motion) -> list[Track | None]:
        """Correspondences and geometric poses of the new frames, in order."""
        if not self.config.assist.enabled or not self._buffer.keyframes:
            return [None] * len(views)
        references, previous = (
            self._settler.companions(len(self._buffer.keyframes) + 1),
            self._previous(),
        )
        tracks: list[Track | None] = []
        for view in views:
            track = self._assist.track(
                view, previous, references, motion.predict(view.frame.stamp_ns)
            )
            view.pose = view.expected = track.pose
            tracks.append(
                replace(
                    track,
                    depth=propagate_depth(view, track, 1 if len(self._buffer.keyframes) < 3 else 0),
                )
            )
            previous = view
        return tracks

    def _window(self, views: list[View], tracks: list[Track | None]) -> Window:
        """Recent keyframes and the new frames; geometry is wanted of the new ones and of the last
        shared ones."""
        companions = self._settler.companions(max(self.config.engine.window - len(views), 1))
        evidence: Evidence | None = None
        if self.predictor.uses_evidence:
            grid = self.predictor.input_size(
                views[-1].frame.rgb.shape[1], views[-1].frame.rgb.shape[0]
            )
            evidence = window_evidence(companions, views, tracks, self._settler.mapper.bundle, grid)
        return Window(
            frames=tuple(view.frame for view in (*companions, *views)),
            wanted=tuple(view.id for view in (*companions[-SEAM_FRAMES:], *views)),
            evidence=evidence,
        )

    def _is_plain(self, views: list[View], tracks: list[Track | None]) -> bool:
        """One frame whose pose geometry knows while nothing is lost, and which will not be a
        keyframe: what follows may go ahead."""
        track, settler = tracks[0], self._settler
        if len(views) > 1 or track is None or (track.refined is None and track.still is None):
            return False
        return (
            settler.anchor is None
            and settler.tracker.untrusted == 0
            and not settler.wants_keyframe(views[0])
        )

    # --- answers ----------------------------------------------------------------------------------

    def settle(self) -> Iterator[Estimate]:
        """Estimates of what `feed` left at the network; frames whose forward failed for the first
        time wait for the next one instead."""
        batch, self._batch = self._batch, None
        if batch is None:
            return
        answer = batch.answer.result()
        batch.clock.milliseconds["network"] = answer.milliseconds
        self.windows_failed += answer.prediction is None
        if answer.prediction is None and not self._retried:
            self._retried, self._waiting = True, batch.views
            self._assist.memory, self._onward = batch.start.memory, batch.start.motion
            return
        self._retried = False
        given, self.frames_in = (
            self.frames_in,
            batch.frames_in,
        )  # who takes an estimate sees the counts of its own time
        yield from self._settler.settle(batch, answer.prediction)
        self.frames_in = given
        samples, self._samples = self._samples, []
        for sample in samples:
            self.scale.add_odometry(*sample)

    def _flush(self) -> Iterator[Estimate]:
        """Estimates of all frames on their way, whatever they wait for; a failed forward is not
        tried again."""
        yield from self.settle()
        if self._held:
            yield from self._release()
        if self._waiting:
            self._retried = True
            yield from self._send(Clock())
            yield from self.settle()

    def _restart(self, reason: str, stamp_ns: int) -> Iterator[Estimate]:
        """The stream changed for good: flush what is on its way, then go on from the last pose with
        nothing remembered, in a new segment."""
        yield from self._flush()
        self._admission.assumed = None
        self.predictor.reset()
        self._assist.reset()
        self._settler.restart(reason, stamp_ns)
        self._onward = None
        log.warning("a new segment begins: %s", reason)

    def _begin(self) -> None:
        """Nothing on its way, nothing counted."""
        self.frames_in = self.windows_failed = 0
        self.drops.clear()
        self._admission.assumed = None
        self._held, self._waiting, self._samples = [], [], []
        self._batch = self._onward = None
        self._retried = False
