"""Estimates of every field, and the messages that the outputs make of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from flow3r_ros.bags.types import ros2_types
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.types import Camera, Estimate, PoseSource, ScaleState, Seam, TrackingState
from flow3r_ros.wire.outputs import TOPICS, Outputs, RunStatus

HEIGHT, WIDTH = 12, 16
APART = {"~/map", "~/flow"}
"""topics of a map and of a pair of keyframes"""
CAMERA = Camera(WIDTH, HEIGHT, 14.0, 15.0, 7.4, 5.6)
TURNED = rigid(so3_exp([0.0, 0.3, 0.0]), [1.0, 0.0, 2.0])
IN_MAP = RunStatus(loops_closed=3, map_to_odom_age_s=1.5, T_map_odom=TURNED)
STATUS = RunStatus(7, 5, {"busy": 2, "bad_step": 1}, 3, 1.5, 2.5, "nano", "ab" * 32, "Apache-2.0")
E_BASE_OPTICAL = rigid(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), (0.3, 0.1, 0.6))


def estimate(index: int = 0, T: np.ndarray | None = None, **changes: Any) -> Estimate:
    random = np.random.default_rng(index)
    depth = random.uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32)
    depth[2:4, 3:6] = np.nan
    spread = random.normal(size=(6, 6))
    made = Estimate(
        frame_id=index,
        stamp_ns=1_700_000_000_987_654_321 + index * 100_000_000,
        source_frame="cam_optical",
        T_odom_cam=np.eye(4) if T is None else T,
        covariance=spread @ spread.T * 1e-4,
        depth=depth,
        confidence=random.uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float32),
        moving=random.random((HEIGHT, WIDTH)) < 0.1,
        rgb=random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
        camera=CAMERA,
        tracking_state=TrackingState.TRACKING,
        pose_source=PoseSource.TWO_VIEW,
        scale_state=ScaleState.ANCHORED,
        scale_sigma=0.04,
        seam=Seam(np.eye(4), 1.1, 0.9, 0.02, True),
        keyframe=True,
        window=(0, 3, index),
        segment=2,
        reason="blurred",
        twist=np.array([0.1, 0.2, 1.0, 0.0, -0.3, 0.05]),
        twist_covariance=spread.T @ spread * 1e-3,
        keyframes=7,
    )
    return replace(made, **changes)


def build(outputs: Outputs, made: Estimate, status: RunStatus = STATUS) -> dict[str, Any]:
    messages = outputs.build(made, TOPICS, status)
    messages["~/path"] = ros2_types().deserialize_cdr(messages["~/path"], TOPICS["~/path"])
    return messages
