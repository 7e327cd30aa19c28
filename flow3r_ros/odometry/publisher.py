"""The way out: one scale on everything, the voxel map, the counters.

Whatever leaves the odometry passes here once, so pose, depth and cloud of a stamp cannot disagree
about their unit.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.odometry.cloud import VoxelMap
from flow3r_ros.odometry.scale import Scale
from flow3r_ros.odometry.views import View
from flow3r_ros.types import (
    Estimate,
    Float64,
    PoseSource,
    ScaleState,
    Segment,
    TrackingState,
)

BRIDGED_CONFIDENCE = 0.25
"""factor on the depth confidence of frames whose pose nothing measured"""


class Publisher:
    """Turns settled views into estimates.

    `segments` lists the pieces of the trajectory; `tracking_states` and `pose_sources` count by
    value; `map` is the voxel map in output units,
    None before the first keyframe; `median_depth` is that of the last frame with depth, odometry
    units, None before it.
    """

    def __init__(self, config: Config) -> None:
        self.config = config
        self.scale = Scale(config.scale)
        self.reset()

    def reset(self) -> None:
        """Forget scale, map and counters."""
        self.scale.reset()
        self.tracking_states: Counter[str] = Counter()
        self.pose_sources: Counter[str] = Counter()
        self.map: VoxelMap | None = None
        self.median_depth: float | None = None
        self._last: Estimate | None = None
        self.segments: list[Segment] = []
        self._reason = "start"

    def begin_segment(self, reason: str) -> None:
        """The next estimate is the first of a new segment."""
        self._reason = reason
        self._last = None

    def publish(
        self,
        view: View,
        covariance: Float64,
        state: TrackingState,
        source: PoseSource,
        keyframe: bool,
        window: tuple[int, ...],
    ) -> Estimate:
        """Estimate of one settled view; keyframes feed the map. `covariance` is in odometry units
        and is scaled unless lost."""
        map_ = DepthMap(view.inverse_depth, view.sigma)
        depth = map_.depth()
        confidence = map_.confidence()
        sample = depth[::3, ::3][np.isfinite(depth[::3, ::3])]
        if len(sample):
            self.median_depth = float(np.median(sample))
        self.scale.observe_pose(view.frame.stamp_ns, view.pose, self.median_depth or 1.0)
        if keyframe:
            self.scale.keyframe_added()
            self.scale.observe_ground(depth, view.camera)
        factor = self.scale.factor
        units = np.array([factor] * 3 + [1.0] * 3)
        estimate = Estimate(
            frame_id=view.id,
            stamp_ns=view.frame.stamp_ns,
            source_frame=view.frame.source_frame,
            T_odom_cam=self.scale.output_pose(view.pose),
            covariance=covariance
            if state is TrackingState.LOST
            else covariance * np.outer(units, units),
            depth=depth if factor == 1.0 else depth * np.float32(factor),
            confidence=confidence * np.float32(BRIDGED_CONFIDENCE)
            if source is PoseSource.PREDICTED
            else confidence,
            moving=view.moving,
            rgb=view.rgb,
            camera=view.camera,
            tracking_state=state,
            pose_source=source,
            scale_state=self.scale.state,
            scale_sigma=self.scale.sigma,
            seam=view.seam,
            keyframe=keyframe,
            window=window,
        )
        if keyframe:
            self._feed_map(estimate)
        return self._count(estimate)

    def repeat(self, view: View) -> Estimate | None:
        """The last estimate under a new stamp, for a picture that came again; None when there is no
        last one."""
        if self._last is None:
            return None
        repeated = replace(
            self._last,
            frame_id=view.id,
            stamp_ns=view.frame.stamp_ns,
            pose_source=PoseSource.REPEATED,
            keyframe=False,
            window=(),
            seam=None,
            stage_ms={},
        )
        return self._count(repeated)

    def _feed_map(self, estimate: Estimate) -> None:
        if self.map is None:
            metric = self.scale.state is ScaleState.METRIC
            unit = (
                1.0
                if metric or not np.isfinite(estimate.depth).any()
                else float(np.nanmedian(estimate.depth))
            )
            self.map = VoxelMap(self.config.cloud.voxel * unit, self.config.cloud.max_voxels)
        self.map.insert(estimate, self.config.cloud.min_confidence, self.config.cloud.edge_ratio)

    def _count(self, estimate: Estimate) -> Estimate:
        id_ = estimate.frame_id
        if self._reason:
            self.segments.append(Segment(id_, id_, self._reason))
            self._reason = ""
        self.segments[-1] = replace(self.segments[-1], last_frame=id_)
        estimate = replace(estimate, segment=len(self.segments) - 1)
        self._last = estimate
        self.tracking_states[estimate.tracking_state.value] += 1
        self.pose_sources[estimate.pose_source.value] += 1
        return estimate
