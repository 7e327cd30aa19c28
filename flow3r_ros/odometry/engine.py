"""The odometry: frames in, estimates out; every frame gets one or is counted as dropped with a
reason.

Each frame is followed from the latest keyframe and verified at once; a new keyframe is built by the
back end in its own thread, and taken in at a join that the frames alone decide: `JOIN_AFTER` frames
on, or when the next keyframe is wanted. Until then the front end goes on with what it knew, so what
comes out never depends on timing. Torch-free and ROS-free.

World: the optical frame of the first camera of a segment. Unit: what the network said of the first
frame, until `scale` knows better.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.config import Config
from flow3r_ros.errors import FrameError
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.odometry.backend import Backend, Built
from flow3r_ros.odometry.cloud import VoxelMap
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.odometry.focal import HELD, find_camera, with_camera
from flow3r_ros.odometry.frontend import FrontEnd
from flow3r_ros.odometry.input import Input, same_picture
from flow3r_ros.odometry.model_defaults import fitted_to
from flow3r_ros.odometry.output import Output
from flow3r_ros.odometry.scale import Scale
from flow3r_ros.odometry.verification import informative
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Camera, Estimate, Float32, Frame, Inertial, Predictor, Segment

log = logging.getLogger(__name__)

FAILED = "the back end failed at the first keyframe and starts anew"
"""why a first frame has no keyframe"""
FIRST_JOINS, FIRST_JOIN_AFTER = 2, 1
"""keyframes at the start of a segment that are waited for, and how soon: until then dense depth is
a guess from one picture"""
JOIN_AFTER = 16
"""frames after a keyframe at which its result is taken in: .5 s of a 30 Hz camera, which the back
end needs on two shared cores"""

GIVEN = ("predictor", "config", "_listener", "_back")
"""what a snapshot of the engine leaves out: the first three are given, the last has its own"""


class Engine:
    """Monocular odometry around a geometry network; a context manager that ends its threads.

    `frames_in`, `drops` (reason -> count), `seams`, `seams_refused`, `windows_failed`,
    `relocalisations`, `tracking_states` and `pose_sources` count what happened; `focal` is how long
    the lens proved to be over the given one, `focal_sigma` the 1-sigma of its logarithm, `bend` its
    radial distortion beyond the given (`views.straightened`). `listener` is told of every keyframe
    that is taken in, in this thread: what it does with it is kept away
    from the odometry, and should be short.
    """

    def __init__(
        self,
        predictor: Predictor,
        config: Config | None = None,
        listener: Callable[[Finished], None] | None = None,
    ) -> None:
        self.predictor = predictor
        self.config = config = fitted_to(predictor, config or Config())
        self._listener = listener
        self._input = Input(config.tracking.depth_width)
        self._front = FrontEnd(config)
        self._back = Backend(predictor, config)
        self._output = Output(config)
        self._begin()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the back end's thread; the engine takes no frames afterwards."""
        self._back.close()

    @property
    def scale(self) -> Scale:
        """Factor, state and sigma of the output's unit."""
        return self._output.scale

    @property
    def map(self) -> VoxelMap | None:
        """The voxel map in output units; None before the first keyframe."""
        return self._output.map

    @property
    def tracking_states(self) -> Counter[str]:
        """Estimates per tracking state."""
        return self._output.tracking_states

    @property
    def pose_sources(self) -> Counter[str]:
        """Estimates per source of their pose."""
        return self._output.pose_sources

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of the trajectory, oldest first; `Estimate.segment` counts them from 0."""
        return tuple(self._output.segments)

    @property
    def relocalisations(self) -> int:
        """How often a remembered place was recognised after tracking was lost."""
        return self._front.relocalisations

    @property
    def corners(self) -> tuple[NDArray[np.int64], Float32]:
        """Corners that the latest frame was followed by: ids `[N]`, the same for a point in all
        frames, and where it was seen `[N, 2]`, as shares of the picture's width and height."""
        return self._front.corners

    @property
    def assumed_camera(self) -> Camera | None:
        """The pinhole of the full image that was found for frames without a camera; None when they
        have one."""
        return None if self._input.given is not None else self._input.assumed

    def step(self, frame: Frame, depth: bool = True) -> list[Estimate]:
        """Take the next frame; returns the estimates that are ready, oldest first (usually one, for
        this frame). `depth` is whether that of the frame is asked for: its completion takes a third
        of the front end's time, and no pose, state or covariance depends on it.

        At the start of a stream without a camera frames wait until the focal length is settled
        (`odometry.focal`). Raises CameraError for impossible intrinsics; bad frames do not raise,
        they are counted in `drops`.
        """
        return list(self.feed(frame, depth))

    def feed(self, frame: Frame, depth: bool = True) -> Iterator[Estimate]:
        """As `step`, one estimate at a time; must be used up before the next call."""
        self.frames_in += 1
        begun = perf_counter()
        try:
            view = self._input.admit(frame)
        except FrameError as error:
            self.drops[error.reason] += 1
            log.warning("frame %d dropped (%s): %s", frame.id, error.reason, error)
            return
        stages = {"rectify": 1e3 * (perf_counter() - begun)}
        if self._input.restarted:
            yield from self._release()
            self._begin_segment(self._input.restarted, frame.stamp_ns)
            self._input.assumed = None
            self.focal, self.focal_sigma, self.bend = 1.0, 0.0, 0.0  # it may be another lens
        if self._input.given is None and self._input.assumed is None:
            self._held.append(view)
            if len(self._held) >= HELD:
                yield from self._release()
        else:
            yield self._advance(view, stages, depth)

    def finish(self) -> list[Estimate]:
        """Estimates of frames still on their way, and the last keyframe taken in; the engine can go
        on afterwards."""
        estimates = list(self._release())
        if self._back.busy:
            self._join()
        return estimates

    def reset(self) -> None:
        """Start anew: world, scale, map, counters and the network's memory."""
        self._back.reset()
        self._input.reset()
        self._front.reset()
        self._output.reset()
        self.predictor.reset()
        self._begin()

    def snapshot(self) -> dict[str, Any]:
        """Everything remembered but predictor and settings, as objects that pickle: an engine with
        those two that `restore`s it goes on with the same estimates.

        A keyframe that is being built is waited for, not taken in. The objects are the engine's
        own: write them before the next frame. Raises what building the keyframe raised.
        """
        kept = {name: value for name, value in vars(self).items() if name not in GIVEN}
        return kept | {"_back": self._back.snapshot()}

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on from what `snapshot` gave."""
        back = snapshot.pop("_back")
        self.reset()
        vars(self).update(snapshot)
        self._back.restore(back)

    def add_odometry(self, stamp_ns: int, T_odom_base: np.ndarray) -> None:
        """A wheel-odometry pose `[4, 4]` in metres, later than every frame given; used when
        `scale.source` is `odometry`."""
        self.scale.add_odometry(stamp_ns, T_odom_base)

    def add_inertial(self, reading: Inertial) -> None:
        """A reading of an inertial unit, later than every frame given: a prior for the rotation and
        evidence about it, and before the first frame, at rest, what makes the world level."""
        self._front.inertial.add(reading)

    def _begin(self) -> None:
        """Nothing on its way, nothing counted."""
        self.frames_in = self.windows_failed = self.seams = self.seams_refused = 0
        self.drops: Counter[str] = Counter()
        self._input.assumed = None
        self._held: list[View] = []
        self._previous: View | None = None
        self._built: Built | None = None
        self._since_keyframe = 0
        self.focal, self.focal_sigma, self.bend = 1.0, 0.0, 0.0

    def _begin_segment(self, reason: str, stamp_ns: int) -> None:
        """Nothing of what was remembered holds any more."""
        log.warning("a new segment begins: %s", reason)
        self._back.reset()
        self.predictor.reset()
        self._front.begin_segment()
        self._output.begin_segment(reason, stamp_ns)
        self._previous = self._built = None

    def _release(self) -> Iterator[Estimate]:
        """Settle the unknown camera and let the frames through that waited for it."""
        held, self._held = self._held, []
        if not held:
            return
        camera = find_camera(held, self.predictor, Matcher(self.config.tracking.depth_width))
        self._input.assumed = camera
        for view in held:
            yield self._advance(with_camera(view, camera, self.config.tracking.depth_width), {})

    def _advance(self, view: View, stages: dict[str, float], with_depth: bool = True) -> Estimate:
        """One frame through the front end, and a keyframe to the back end where one is wanted."""
        again = self._previous is not None and same_picture(view.gray, self._previous.gray)
        if again and informative(view.tracking):  # two black pictures are no repetition
            repeated = self._front.repeat(view)
            estimate = self._output.repeat(view, *repeated)
            if estimate is not None:
                return estimate
        self._previous = view
        self._since_keyframe += 1
        due = FIRST_JOIN_AFTER if self._front.keyframes <= FIRST_JOINS else JOIN_AFTER
        if self._back.busy and (self._front.wants_join or self._since_keyframe >= due):
            self._join(stages)
        if self._front.gives_up:
            self._begin_segment(
                f"lost for {self._front.unbelieved} frames, and no place recognised",
                view.frame.stamp_ns,
            )
        view = view.with_lens(self.focal, self.bend)
        begun = perf_counter()
        settled = self._front.settle(view, self._back.busy)
        stages["track"] = 1e3 * (perf_counter() - begun)
        if settled.keyframe:
            self._back.submit(self._front.order(view))
            self._since_keyframe = 0
            if self._front.waits_for_first:
                self._join(stages)
                if self._front.waits_for_first:  # the back end failed: the next frame is asked
                    failed = settled.without_keyframe(FAILED)
                    return self._output.publish(failed, stages, with_depth)
                settled = self._front.first(view)
        elif with_depth and self.config.engine.network == "every_frame" and settled.state.has_pose:
            depth, moving = self._back.look(view, settled.pose)
            settled = settled.with_depth(depth.every_second(), moving[::2, ::2])
        built, self._built = self._built, None
        if built is not None:
            stages |= built.stage_ms
            settled = settled.joined(built.seam, built.window)
        return self._output.publish(settled, stages, with_depth)

    def _join(self, stages: dict[str, float] | None = None) -> None:
        """Take in the keyframe that the back end has built; waits for it where it is not ready."""
        begun = perf_counter()
        self._built = built = self._back.take()
        if stages is not None:
            stages["join"] = 1e3 * (perf_counter() - begun)
        self.windows_failed += built is None or not built.answered
        if built is None:
            self._front.backend_failed()
            return
        if built.seam is not None:
            self.seams += built.seam.accepted
            self.seams_refused += not built.seam.accepted
        self.focal, self.focal_sigma, self.bend = built.focal, built.focal_sigma, built.bend
        self._front.join(built)
        if self._listener is not None:
            self._listener(
                Finished(built.reference, built.features, built.adjusted, self._output.segment)
            )
