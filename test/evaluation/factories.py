"""Random trajectories for the evaluation tests."""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Camera, Estimate, Float64, PoseSource, ScaleState, Seam, TrackingState


def random_poses(
    rng: np.random.Generator, count: int, step: float = 0.1, turn: float = 0.05
) -> Float64:
    """A smooth random walk of camera-to-world poses `[count, 4, 4]`."""
    poses = np.tile(np.eye(4), (count, 1, 1))
    velocity, spin = rng.normal(0, step, 3), rng.normal(0, turn, 3)
    for i in range(1, count):
        velocity = 0.9 * velocity + rng.normal(0, 0.3 * step, 3)
        spin = 0.9 * spin + rng.normal(0, 0.3 * turn, 3)
        poses[i, :3, :3] = poses[i - 1, :3, :3] @ Rotation.from_rotvec(spin).as_matrix()
        poses[i, :3, 3] = poses[i - 1, :3, 3] + poses[i - 1, :3, :3] @ velocity
    return poses


def disturbed(
    rng: np.random.Generator, poses: Float64, metres: float = 0.05, radians: float = 0.02
) -> Float64:
    """The poses moved by a random Sim(3) with noise on top."""
    noisy = poses.copy()
    turn, shift, scale = (
        Rotation.random(random_state=int(rng.integers(1 << 31))).as_matrix(),
        rng.normal(0, 3, 3),
        rng.uniform(0.3, 3),
    )
    for pose in noisy:
        pose[:3, :3] = (
            turn @ pose[:3, :3] @ Rotation.from_rotvec(rng.normal(0, radians, 3)).as_matrix()
        )
        pose[:3, 3] = scale * turn @ (pose[:3, 3] + rng.normal(0, metres, 3)) + shift
    return noisy


def trajectory(poses: Float64, start_s: float = 0.0, period_s: float = 0.1) -> Trajectory:
    """Poses with regular stamps."""
    stamps = np.array([round((start_s + i * period_s) * 1e9) for i in range(len(poses))], np.int64)
    return Trajectory(stamps, poses)


def make_estimate(
    rng: np.random.Generator,
    index: int,
    pose: Float64,
    state: TrackingState = TrackingState.TRACKING,
) -> Estimate:
    """One estimate of a tilted wall on a small grid, with a moving square."""
    height, width = 48, 64
    columns = np.linspace(1.0, 4.0, width, dtype=np.float32)
    depth = np.tile(columns, (height, 1)) + rng.normal(0, 0.02, (height, width)).astype(np.float32)
    depth[:3] = np.nan
    moving = np.zeros((height, width), bool)
    moving[20:34, 10 + index % 30 : 24 + index % 30] = True
    rgb = np.stack(
        [
            np.full((height, width), 90),
            np.tile(np.linspace(40, 220, width), (height, 1)),
            np.full((height, width), 160),
        ],
        -1,
    )
    return Estimate(
        frame_id=index,
        stamp_ns=index * 100_000_000,
        source_frame="camera",
        T_odom_cam=pose,
        covariance=np.diag([1e-4] * 3 + [1e-5] * 3),
        depth=depth,
        confidence=np.tile(np.linspace(0.2, 1.0, width, dtype=np.float32), (height, 1)),
        moving=moving,
        rgb=rgb.astype(np.uint8),
        camera=Camera(width, height, 60.0, 60.0, 31.5, 23.5),
        tracking_state=state,
        pose_source=PoseSource.FIRST
        if index == 0
        else PoseSource.TWO_VIEW
        if index % 4
        else PoseSource.NETWORK,
        scale_state=ScaleState.RELATIVE,
        scale_sigma=0.05 + 0.01 * rng.random(),
        seam=Seam(
            np.eye(4), 1.0 + 0.02 * rng.normal(), 0.8, 0.05 + 0.02 * rng.random(), index % 17 != 16
        )
        if index
        else None,
        keyframe=index % 8 == 0,
        stage_ms={
            "decode": 3.0 + rng.random(),
            "track": 30 + 5 * rng.random(),
            "network": 60 + 10 * rng.random(),
            "align": 2.0,
        },
    )


def make_record(
    frames: int = 60, title: str = "a walk", seed: int = 0, with_reference: bool = True
) -> RunRecord:
    """A filled run record: initialising, tracking, a while degraded, one lost frame."""
    rng = np.random.default_rng(seed)
    poses = random_poses(rng, frames)
    record = RunRecord(title)
    for index, pose in enumerate(disturbed(rng, poses, 0.01, 0.005)):
        state = (
            TrackingState.INITIALIZING
            if index < 2
            else TrackingState.DEGRADED
            if 20 <= index < 25
            else TrackingState.TRACKING
        )
        record.add(make_estimate(rng, index, pose, TrackingState.LOST if index == 25 else state))
    record.summary = {
        "frames_in": frames + 2,
        "frames_estimated": frames,
        "frames_dropped": {"corrupt_image": 2},
        "seams": frames - 1,
        "seams_refused": 3,
        "scale_state": "relative",
        "tracking_states": {"tracking": frames},
        "pose_sources": {"two_view": frames},
        "fps": 12.5,
        "latency_ms": {"p50": 80.0, "p95": 120.0},
        "stage_ms": {"network": 65.0},
        "peak_rss_mb": 512.0,
        "device": "cpu",
        "model": "flow3r_nano",
        "weights_sha256": "0" * 64,
        "weights_license": "Apache-2.0",
    }
    record.settings = {"engine": {"window": 4}, "model": {"name": "flow3r_nano"}}
    if with_reference and frames >= 3:
        record.reference = trajectory(poses)
    return record
