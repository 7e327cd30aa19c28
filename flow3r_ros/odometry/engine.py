"""The window odometry: frames in, estimates out; every frame gets one or is counted as dropped with a reason.

`step` is the way of one frame: admit it, encode it beside the correspondences, send the window through the network, join the
window to the odometry by frame id, let geometry and network compete for the pose, complete the depth, publish. Torch-free and
ROS-free; what comes out depends on the frames alone, never on timing.

World: the optical frame of the first camera. Unit: what the network said of the first frame, until `scale` knows better.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from time import perf_counter

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.errors import Flow3rError, FrameError
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.lie import invert, nearest_rotation
from flow3r_ros.odometry.admission import Admission, same_picture
from flow3r_ros.odometry.align import Known, fit_seam
from flow3r_ros.odometry.arbiter import GATE, TOLD_GATE, Choice, choose_pose
from flow3r_ros.odometry.assist import Assist, Track
from flow3r_ros.odometry.cloud import VoxelMap
from flow3r_ros.odometry.completion import complete_depth, propagate_depth
from flow3r_ros.odometry.depth import parallax_and_overlap
from flow3r_ros.odometry.focal import HELD, find_camera, with_camera
from flow3r_ros.odometry.mapper import BUNDLE, Mapper
from flow3r_ros.odometry.prior import window_evidence
from flow3r_ros.odometry.publisher import Publisher
from flow3r_ros.odometry.scale import Scale
from flow3r_ros.odometry.tracker import Tracker
from flow3r_ros.odometry.uncertainty import lost, pose_covariance
from flow3r_ros.odometry.views import View, ViewBuffer
from flow3r_ros.types import Estimate, Frame, PoseSource, Prediction, Predictor, Seam, TrackingState, Window

log = logging.getLogger(__name__)

SEAM_FRAMES = 2
"""shared frames of a window whose geometry joins it to the odometry"""


class Engine:
    """Monocular odometry around a geometry network.

    `frames_in`, `drops` (reason -> count), `seams`, `seams_refused`, `windows_failed`, `tracking_states` and `pose_sources` count what
    happened; `map` is the voxel map in output units, None before the first keyframe.
    """

    def __init__(self, predictor: Predictor, config: Config) -> None:
        self.predictor = predictor
        self.config = config
        self._admission = Admission(config.assist.width)
        self._buffer = ViewBuffer(max(config.engine.window, BUNDLE))
        self._assist = Assist(config.assist)
        self._mapper = Mapper(self._buffer, self._assist)
        self._tracker = Tracker(config.engine.lost_after)
        self._publisher = Publisher(config)
        self._encoder = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encode")
        self._batch: list[View] = []
        self._held: list[View] = []
        self._anchor: View | None = None
        self._retried = False
        self._begin()

    @property
    def scale(self) -> Scale:
        """Factor, state and sigma of the output's unit."""
        return self._publisher.scale

    @property
    def map(self) -> VoxelMap | None:
        """The voxel map in output units; None before the first keyframe."""
        return self._publisher.map

    @property
    def tracking_states(self) -> Counter[str]:
        """Estimates per tracking state."""
        return self._publisher.tracking_states

    @property
    def pose_sources(self) -> Counter[str]:
        """Estimates per winning pose candidate."""
        return self._publisher.pose_sources

    def step(self, frame: Frame) -> list[Estimate]:
        """Take the next frame; returns the estimates that are ready, oldest first (usually one, for this frame).

        A frame waits for the next call when its forward failed, until its chunk is full (chunked mode), or, at the start of a stream
        without a camera, until the focal length is settled (`odometry.focal`). Raises CameraError for
        impossible intrinsics; bad frames do not raise, they are counted in `drops`.
        """
        self.frames_in += 1
        self._clock: dict[str, float] = {}
        try:
            with self._stage("rectify"):
                view = self._admission.admit(frame)
        except FrameError as error:
            self.drops[error.reason] += 1
            log.warning("frame %d dropped (%s): %s", frame.id, error.reason, error)
            return []
        flushed = self._restart() if self._admission.restarted else []
        if frame.camera is None and self._admission.assumed is None:
            self._held.append(view)
            return [*flushed, *(self._release() if len(self._held) >= HELD else [])]
        return [*flushed, *self._advance(view)]

    def finish(self) -> list[Estimate]:
        """Estimates of frames still waiting; the engine can go on afterwards."""
        self._clock = {}
        released = self._release() if self._held else []
        return [*released, *(self._process(last=True) if self._batch else [])]

    def reset(self) -> None:
        """Start anew: world, scale, map, counters and the network's memory."""
        self._admission.reset()
        self._buffer.clear()
        self._mapper.clear()
        self._assist.reset()
        self._tracker.reset()
        self._publisher.reset()
        self.predictor.reset()
        self._begin()

    def add_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A wheel-odometry pose `[4, 4]` in metres; used when `scale.source` is `odometry`."""
        self.scale.add_odometry(stamp_ns, T_odom_base)

    def _release(self) -> list[Estimate]:
        """Settle the unknown camera and let the frames through that waited for it."""
        held, self._held = self._held, []
        matcher = Matcher(self.config.assist.width) if self.config.assist.enabled else None
        camera = find_camera(held, self.predictor, matcher)
        self._admission.assumed = camera
        return [estimate for view in held for estimate in self._advance(with_camera(view, camera))]

    def _advance(self, view: View) -> list[Estimate]:
        """Repeat the last estimate for a repeated picture, otherwise process the batch once it is full."""
        repeated = self._repeat(view)
        if repeated is not None:
            return [repeated]
        self._batch.append(view)
        return [] if len(self._batch) < self._batch_size() else self._process(last=False)

    # --- one batch of new frames -------------------------------------------------------------------------------------------

    def _process(self, last: bool) -> list[Estimate]:
        """All verbs for the frames in the batch; returns nothing and keeps the batch when its forward may be tried once more."""
        batch = self._batch
        encoded = [self._encoder.submit(self.predictor.prepare, view.frame) for view in batch]
        tracks = self._track(batch)
        window = self._window(batch, tracks)
        prediction = self._predict(window, encoded)
        if prediction is None and not last and not self._retried:
            self._retried = True
            return []
        self._batch, self._retried = [], False
        seam, known = self._join(prediction)
        return [self._settle(view, track, prediction, seam, known, window) for view, track in zip(batch, tracks, strict=True)]

    def _track(self, batch: list[View]) -> list[Track | None]:
        """Correspondences and geometric poses of the new frames, in order."""
        if not self.config.assist.enabled or not self._buffer.keyframes:
            return [None] * len(batch)
        references = self._companions(len(self._buffer.keyframes) + 1)
        previous = self._buffer.previous
        tracks: list[Track | None] = []
        with self._stage("assist"):
            for view in batch:
                track = self._assist.track(view, previous, references, self._tracker.predict(view.frame.stamp_ns))
                view.pose = track.pose
                tracks.append(replace(track, depth=propagate_depth(view, track, 1 if len(self._buffer.keyframes) < 3 else 0)))
                previous = view
        return tracks

    def _window(self, batch: list[View], tracks: list[Track | None]) -> Window:
        """Recent keyframes and the new frames; geometry is wanted of the new ones and of the last shared ones."""
        companions = self._companions(max(self.config.engine.window - len(batch), 1))
        shared = companions[-SEAM_FRAMES:]
        evidence = None
        if self.predictor.uses_evidence:
            with self._stage("evidence"):
                grid = self.predictor.input_size(batch[-1].frame.rgb.shape[1], batch[-1].frame.rgb.shape[0])
                evidence = window_evidence(companions, batch, tracks, self._mapper.bundle, grid)
        return Window(
            frames=tuple(view.frame for view in (*companions, *batch)),
            wanted=tuple(view.id for view in (*shared, *batch)),
            evidence=evidence,
        )

    def _companions(self, count: int) -> list[View]:
        """Views the odometry knows; while lost, the place of the oldest goes to a fresh anchor."""
        if self._anchor is None:
            return self._buffer.companions(count)
        return [*self._buffer.companions(count - 1), self._anchor]

    def _predict(self, window: Window, encoded: list[Future[None]]) -> Prediction | None:
        """Geometry of the window with proper rotations; None when the forward fails (said and counted)."""
        try:
            with self._stage("encode"):
                for future in encoded:
                    future.result()
            with self._stage("network"):
                prediction = self.predictor.predict(window)
        except Flow3rError as error:
            self.windows_failed += 1
            log.warning("window %s failed: %s", [frame.id for frame in window.frames], error)
            return None
        poses = np.array(prediction.poses, dtype=np.float64)
        for pose in poses:
            if np.isfinite(pose).all():
                pose[:3, :3] = nearest_rotation(pose[:3, :3])
        return replace(prediction, poses=poses)

    def _join(self, prediction: Prediction | None) -> tuple[Seam | None, dict[int, Known]]:
        """Seam of the window, from the keyframes or, while lost, from the anchor (which then begins a new segment)."""
        if prediction is None or not self._buffer.keyframes:
            return None, {}
        with self._stage("align"):
            known = self._known(self._buffer.keyframes, prediction)
            seam = fit_seam(prediction, known, self.config.engine)
            if not seam.accepted and self._anchor is not None:
                anchored = self._known([self._anchor], prediction)
                retry = fit_seam(prediction, anchored, self.config.engine)
                if retry.accepted:
                    self._begin_segment(self._anchor)
                    seam, known = retry, anchored
        self.seams += seam.accepted
        self.seams_refused += not seam.accepted
        if not seam.accepted:
            log.warning("seam of window ending at frame %d refused: %s", prediction.frame_ids[-1], seam.reason)
        return seam, known

    def _known(self, views: list[View], prediction: Prediction) -> dict[int, Known]:
        height, width = prediction.confidence.shape[1:]
        return {view.id: Known(view.pose, view.depth_on_grid(width, height)) for view in views if view.id in prediction.frame_ids}

    # --- one new frame -----------------------------------------------------------------------------------------------------

    def _settle(
        self, view: View, track: Track | None, prediction: Prediction | None, seam: Seam | None, known: dict[int, Known], window: Window
    ) -> Estimate:
        """Choose the pose, complete the depth, follow the state, remember and publish one frame."""
        with self._stage("pose"):
            choice = self._choose(view, track, prediction, seam, known)
            view.pose, view.seam = choice.pose, seam
        keyframe = choice.trusted and self._wants_keyframe(view)
        geometric = None if track is None else track.depth
        if track is not None and choice.pose is not track.pose:
            with self._stage("assist"):
                geometric = propagate_depth(view, track, 0)
        with self._stage("depth"):
            complete_depth(view, geometric, prediction, seam, self._publisher.median_depth)
        if keyframe:
            with self._stage("bundle"):
                self._mapper.remember(view, track, choice.source)
        state = self._follow(view, choice, seam)
        self._covariance = lost() if state is TrackingState.LOST else choice.covariance
        if choice.source is not PoseSource.STATIONARY:
            self._buffer.previous = view
        ids = tuple(frame.id for frame in window.frames)
        with self._stage("cloud"):
            estimate = self._publisher.publish(view, self._covariance, state, choice.source, keyframe, ids)
        return replace(estimate, stage_ms=dict(self._clock))

    def _choose(self, view: View, track: Track | None, prediction: Prediction | None, seam: Seam | None, known: dict[int, Known]) -> Choice:
        predicted, depth = self._tracker.predict(view.frame.stamp_ns), self._publisher.median_depth or 1.0
        if not self._buffer.keyframes:
            return Choice(predicted, PoseSource.FIRST, pose_covariance(np.zeros((6, 6)), None, depth))
        gate = TOLD_GATE if self.predictor.uses_evidence else GATE
        return choose_pose(view, track, prediction, seam, known, predicted, self._covariance, depth, gate)

    def _follow(self, view: View, choice: Choice, seam: Seam | None) -> TrackingState:
        """State after this frame; while lost, every `lost_after` frames a fresh view may begin a new segment."""
        sure = seam is None or seam.accepted or choice.source in (PoseSource.STATIONARY, PoseSource.FIRST)
        state = self._tracker.update(view.pose, view.frame.stamp_ns, choice.trusted, sure)
        overdue = self._tracker.untrusted - self.config.engine.lost_after
        if choice.trusted:
            self._anchor = None
        elif overdue >= 0 and overdue % self.config.engine.lost_after == 0:
            self._anchor = view
        return state

    def _wants_keyframe(self, view: View) -> bool:
        """First frame, enough parallax, or too little overlap with the last keyframe."""
        if not self._buffer.keyframes:
            return True
        last, settings = self._buffer.keyframes[-1], self.config.engine
        with np.errstate(divide="ignore", invalid="ignore"):
            flow, overlap = parallax_and_overlap(1.0 / last.inverse_depth, invert(last.pose) @ view.pose, view.camera)
        return flow > settings.keyframe_parallax * view.camera.width or overlap < settings.keyframe_overlap

    # --- beginnings --------------------------------------------------------------------------------------------------------

    def _begin_segment(self, anchor: View) -> None:
        log.warning("frame %d begins a new segment: the old one is out of sight", anchor.id)
        self._buffer.clear()
        self._buffer.add_keyframe(anchor)
        self.scale.restart_span()
        self._anchor = None

    def _restart(self) -> list[Estimate]:
        """The stream changed for good: flush what waits, then go on from the last pose with nothing remembered."""
        flushed = [*(self._release() if self._held else []), *(self._process(last=True) if self._batch else [])]
        self._admission.assumed = None
        self.predictor.reset()
        self._buffer.clear()
        self._assist.reset()
        self.scale.restart_span()
        self._anchor = None
        log.warning("the stream changed: the odometry starts a new segment")
        return flushed

    def _begin(self) -> None:
        """Nothing seen, nothing counted."""
        self.frames_in = self.seams = self.seams_refused = self.windows_failed = 0
        self.drops: Counter[str] = Counter()
        self._clock = {}
        self._batch, self._held = [], []
        self._admission.assumed = None
        self._retried = False
        self._anchor = None
        self._covariance = np.zeros((6, 6))

    def _repeat(self, view: View) -> Estimate | None:
        """Estimate of a picture that came again, None for a new picture; frames that wait are never repeated."""
        previous = self._buffer.previous
        if self._batch or previous is None or not same_picture(view.gray, previous.gray):
            return None
        repeated = self._publisher.repeat(view)
        return None if repeated is None else replace(repeated, stage_ms=dict(self._clock))

    def _batch_size(self) -> int:
        if self.config.engine.mode == "online" or not self._buffer.keyframes:
            return 1
        return min(self.config.engine.stride, self.config.engine.window - 1)

    @contextmanager
    def _stage(self, name: str) -> Iterator[None]:
        start = perf_counter()
        try:
            yield
        finally:
            self._clock[name] = self._clock.get(name, 0.0) + 1e3 * (perf_counter() - start)
