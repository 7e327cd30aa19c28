"""The way out: one scale on everything, the voxel map, the counters.

Whatever leaves the odometry passes here once, so pose, depth and cloud of a stamp cannot disagree
about their unit. Owns counters, segments, scale and map.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.odometry.cloud import VoxelMap
from flow3r_ros.odometry.frame_depth import FrameDepth
from flow3r_ros.odometry.scale import Scale
from flow3r_ros.odometry.views import View
from flow3r_ros.types import (
    Bool,
    Estimate,
    Float32,
    Float64,
    PoseSource,
    ScaleState,
    Seam,
    Segment,
    TrackingState,
)

UNVERIFIED_CONFIDENCE = 0.2
"""factor on the depth confidence of frames whose pose nothing confirmed: at the default of
`depth.min_confidence` they have no depth"""
_NAN = np.float32(np.nan)


@dataclass(frozen=True)
class Settled:
    """One frame as the odometry leaves it, in odometry units.

    `pose` `[4, 4]` camera-to-world; `covariance` and `step` `[6, 6]` in world axes, of the pose
    against the origin and of the motion since the frame before; `velocity` `[6]` a twist a second
    in the camera's axes (None: not known); `depth` and `moving` of every second pixel of the depth
    grid.
    """

    view: View
    pose: Float64
    covariance: Float64
    step: Float64
    velocity: Float64 | None
    step_s: float
    depth: DepthMap
    moving: Bool
    state: TrackingState
    source: PoseSource
    reason: str
    keyframe: bool = False
    keyframes: int = 0
    seam: Seam | None = None
    window: tuple[int, ...] = ()

    def joined(self, seam: Seam | None, window: tuple[int, ...]) -> Settled:
        """The same with the seam and window of the keyframe that was taken in with it."""
        return replace(self, seam=seam, window=window)

    def without_keyframe(self, reason: str) -> Settled:
        """The same where no keyframe could be made of it."""
        return replace(self, keyframe=False, reason=reason)

    def with_depth(self, depth: DepthMap, moving: Bool) -> Settled:
        """The same with another depth."""
        return replace(self, depth=depth, moving=moving)


class Output:
    """Turns settled frames into estimates.

    `tracking_states` and `pose_sources` count by value; `segments` lists the pieces of the
    trajectory; `map` is the voxel map in output units, None before the first keyframe.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.scale = Scale(config.scale)
        self._depth = FrameDepth()
        self.reset()

    def reset(self) -> None:
        """Forget scale, map, segments and counters."""
        self.scale.reset()
        self._depth.reset()
        self.tracking_states: Counter[str] = Counter()
        self.pose_sources: Counter[str] = Counter()
        self.segments: list[Segment] = []
        self.map: VoxelMap | None = None
        self._last: Estimate | None = None
        self._begun = "start"

    @property
    def segment(self) -> int:
        """Number of the segment that the next estimate belongs to."""
        return len(self.segments) - (not self._begun)

    def begin_segment(self, reason: str, stamp_ns: int) -> None:
        """The next estimate, at `stamp_ns`, is the first of a new segment."""
        self._begun = reason
        self._last = None
        self._depth.reset()
        self.scale.restart_span(stamp_ns)

    def publish(self, settled: Settled, stage_ms: dict[str, float], with_depth: bool) -> Estimate:
        """Estimate of one settled frame; keyframes feed the map, and have their depth even where
        nobody asked for it."""
        view = settled.view
        settling = perf_counter()
        with_depth = with_depth or settled.keyframe
        depth, confidence = self._depth_of(settled) if with_depth else _no_depth(view)
        if with_depth:
            stage_ms = {**stage_ms, "frame depth": 1e3 * (perf_counter() - settling)}
        height, width = view.gray.shape
        moving = settled.moving.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        if settled.state.has_pose:
            self.scale.observe_pose(view.frame.stamp_ns, settled.pose, _typical(settled.depth))
        if settled.keyframe:
            self.scale.keyframe_added()
            self.scale.observe_ground(depth, view.camera)
        factor = self.scale.factor
        units = np.outer(*(2 * [np.array([factor] * 3 + [1.0] * 3)]))
        velocity = np.zeros(6) if settled.velocity is None else settled.velocity
        per_second = 0.0 if settled.velocity is None else 1.0 / max(settled.step_s, 1e-3) ** 2
        turn = np.kron(np.eye(2), settled.pose[:3, :3])
        estimate = Estimate(
            frame_id=view.id,
            stamp_ns=view.frame.stamp_ns,
            source_frame=view.frame.source_frame,
            T_odom_cam=self.scale.output_pose(settled.pose),
            covariance=settled.covariance * (units if settled.state.has_pose else 1.0),
            depth=np.where(
                confidence >= self.config.depth.min_confidence, depth * np.float32(factor), _NAN
            ),
            confidence=confidence,
            moving=moving,
            rgb=view.rgb,
            camera=view.camera,
            tracking_state=settled.state,
            pose_source=settled.source,
            scale_state=self.scale.state,
            scale_sigma=self.scale.sigma,
            seam=settled.seam,
            keyframe=settled.keyframe,
            window=settled.window,
            stage_ms=stage_ms,
            reason=settled.reason,
            step_covariance=settled.step * units,
            twist=velocity * np.array([factor] * 3 + [1.0] * 3),
            twist_covariance=(turn.T @ settled.step @ turn) * units * per_second,
            keyframes=settled.keyframes,
            has_depth=with_depth,
        )
        estimate = self._count(estimate)
        if settled.keyframe and settled.state is TrackingState.TRACKING:
            self._feed_map(estimate)
        return estimate

    def _depth_of(self, settled: Settled) -> tuple[Float32, Float32]:
        """Depth in odometry units and confidence of a frame, `[h, w]` each."""
        view, pose = settled.view, settled.pose if settled.state.has_pose else None
        map_ = view.seen(self._depth.settle(view, pose, settled.depth, settled.moving))
        confidence = map_.confidence()
        if settled.state not in (TrackingState.TRACKING, TrackingState.INITIALIZING):
            confidence = confidence * np.float32(UNVERIFIED_CONFIDENCE)
        return map_.depth(), confidence

    def repeat(
        self, view: View, state: TrackingState, reason: str, unseen: Float64
    ) -> Estimate | None:
        """The last estimate under a new stamp, for a picture that came again: what nobody saw,
        `unseen` `[6, 6]` in odometry units, is added to its covariance. None without a last one."""
        if self._last is None:
            return None
        units = np.array([self.scale.factor] * 3 + [1.0] * 3)
        grown = unseen * np.outer(units, units)
        repeated = replace(
            self._last,
            frame_id=view.id,
            stamp_ns=view.frame.stamp_ns,
            pose_source=PoseSource.REPEATED,
            tracking_state=state,
            reason=reason,
            covariance=self._last.covariance + grown,
            step_covariance=grown,
            twist=np.zeros(6),
            twist_covariance=np.zeros((6, 6)),
            keyframe=False,
            window=(),
            seam=None,
            stage_ms={},
        )
        return self._count(repeated)

    def _feed_map(self, estimate: Estimate) -> None:
        if self.map is None:
            metric = self.scale.state is ScaleState.METRIC
            known = np.isfinite(estimate.depth).any()
            unit = 1.0 if metric or not known else float(np.nanmedian(estimate.depth))
            self.map = VoxelMap(self.config.cloud.voxel * unit, self.config.cloud.max_voxels)
        self.map.insert(estimate, self.config.cloud.edge_ratio)

    def _count(self, estimate: Estimate) -> Estimate:
        id_ = estimate.frame_id
        if self._begun:
            self.segments.append(Segment(id_, id_, self._begun))
            self._begun = ""
        self.segments[-1] = replace(self.segments[-1], last_frame=id_)
        self._last = replace(estimate, segment=len(self.segments) - 1)
        self.tracking_states[estimate.tracking_state.value] += 1
        self.pose_sources[estimate.pose_source.value] += 1
        return self._last


def _no_depth(view: View) -> tuple[Float32, Float32]:
    shape = view.gray.shape
    return np.full(shape, _NAN), np.zeros(shape, np.float32)


def _typical(depth: DepthMap) -> float:
    """Median depth, odometry units; 1 where none is known."""
    known = depth.inverse[np.isfinite(depth.inverse) & (depth.inverse > 0)]
    return 1.0 / float(np.median(known[::7])) if len(known) else 1.0
