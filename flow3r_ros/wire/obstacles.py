"""What a costmap wants of an estimate: the points that a robot would run into, in the axes of its
base, and nothing else."""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.config import ObstacleSettings
from flow3r_ros.types import Bool, Estimate, Float64, ScaleState
from flow3r_ros.wire.clouds import map_cloud
from flow3r_ros.wire.images import Make


def why_no_obstacles(estimate: Estimate, base_frame: str) -> str:
    """Why heights and ranges in metres of the base mean nothing; empty where they do."""
    if not base_frame:
        return "node.base_frame is empty, so nobody knows where the ground is; set it"
    if estimate.scale_state is ScaleState.RELATIVE:
        return "the scale is relative, so its unit is no metre; set scale.source"
    return ""


def obstacle_cloud(
    make: Make,
    header: Any,
    estimate: Estimate,
    keep: Bool | None,
    T_base_optical: Float64,
    limits: ObstacleSettings,
) -> Any:
    """`sensor_msgs/PointCloud2`, unorganized, of the points within `limits` in the frame of the
    header, which is the base.

    `keep` bool `[h, w]` marks the pixels worth a point; None keeps every one with a depth.
    """
    confident = (estimate.confidence >= limits.min_confidence) & np.isfinite(estimate.depth)
    chosen = confident if keep is None else confident & keep
    turn, shift = T_base_optical[:3, :3].astype(np.float32), T_base_optical[:3, 3]
    points = estimate.points()[chosen] @ turn.T + shift.astype(np.float32)
    inside = (
        (points[:, 2] >= limits.min_height)
        & (points[:, 2] <= limits.max_height)
        & (np.hypot(points[:, 0], points[:, 1]) <= limits.max_range)
    )
    rgb, confidence = estimate.rgb[chosen][inside], estimate.confidence[chosen][inside]
    return map_cloud(make, header, points[inside], rgb, confidence)
