"""True poses and depth that a bag itself carries, on topics the user names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.bags.storage import Storage
from flow3r_ros.errors import BagError, EvaluationError
from flow3r_ros.geometry.lie import matrix_from_quaternion, rigid
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Camera, Float32, Float64

POSE_TYPES = {
    "nav_msgs/msg/Odometry": lambda message: (
        message.pose.pose.position,
        message.pose.pose.orientation,
    ),
    "geometry_msgs/msg/PoseStamped": lambda message: (
        message.pose.position,
        message.pose.orientation,
    ),
    "geometry_msgs/msg/PoseWithCovarianceStamped": lambda message: (
        message.pose.pose.position,
        message.pose.pose.orientation,
    ),
    "geometry_msgs/msg/TransformStamped": lambda message: (
        message.transform.translation,
        message.transform.rotation,
    ),
}
FARTHEST_M = 200.0
"""median depth beyond which an image in metres is taken to be in millimetres"""
DepthReader = Callable[[], tuple[Float32, Camera | None]]


def poses_from_bag(path: Path, topic: str) -> Trajectory:
    """True poses of a topic, by header stamp; repeated stamps keep the first.

    The poses are compared as they are: with Sim(3) alignment a fixed rotation between the tracked
    body and the camera cancels in ATE, but a lever arm does not.

    Raises:
        EvaluationError: the topic is missing, of another type, or holds no pose.
    """
    poses: dict[int, Float64] = {}
    with Storage(path) as storage:
        kind = _kind(storage, path, topic, tuple(POSE_TYPES))
        for _, _, data in storage.messages({topic}):
            message = _read(storage, topic, data)
            if message is None:
                continue
            position, turn = POSE_TYPES[kind](message)
            pose = rigid(
                matrix_from_quaternion([turn.x, turn.y, turn.z, turn.w]),
                [position.x, position.y, position.z],
            )
            poses.setdefault(_stamp(message), pose)
    stamps = sorted(poses)
    if not stamps:
        raise EvaluationError(f"{path}: {topic} holds no pose")
    return Trajectory(
        np.array(stamps, np.int64), np.stack([poses[stamp] for stamp in stamps]), topic
    )


def depth_from_bag(path: Path, topic: str, limit: int = 50) -> dict[int, DepthReader]:
    """Readers of at most `limit` depth images of a topic, evenly spread, by stamp; they raise
    EvaluationError for depth in millimetres.

    The pinhole comes from a sibling camera_info where there is one (else None: that of the estimate
    is assumed).

    Raises:
        EvaluationError: the topic is missing or is not 16UC1 or 32FC1.
    """
    readers: dict[int, DepthReader] = {}
    with Storage(path) as storage:
        _kind(storage, path, topic, ("sensor_msgs/msg/Image",))
        lens = _lens(storage, topic.rsplit("/", 1)[0] + "/camera_info")
        step = max(1, -(-storage.topics[topic][1] // limit))
        for _, _, data in islice(storage.messages({topic}), 0, None, step):
            message = _read(storage, topic, data)
            if message is None:
                continue
            if message.encoding not in ("16UC1", "32FC1"):
                raise EvaluationError(f"{path}: {topic} is {message.encoding}, not 16UC1 or 32FC1")
            readers[_stamp(message)] = partial(
                _depth, bytes(message.data), message.encoding, message.height, message.width, lens
            )
    return readers


def _depth(
    data: bytes, encoding: str, height: int, width: int, lens: Camera | None
) -> tuple[Float32, Camera | None]:
    if encoding == "16UC1":
        values = np.frombuffer(data, "<u2").reshape(height, width).astype(np.float32) / np.float32(
            1000.0
        )
    else:
        values = np.frombuffer(data, "<f4").reshape(height, width).astype(np.float32)
    values[~(np.isfinite(values) & (values > 0))] = np.nan
    if np.isfinite(values).any() and (middle := float(np.nanmedian(values))) > FARTHEST_M:
        raise EvaluationError(
            f"a depth image has a median of {middle:.0f} m: 32FC1 is in metres (REP "
            "118), this looks like millimetres"
        )
    return values, lens


def _lens(storage: Storage, topic: str) -> Camera | None:
    if topic not in storage.topics:
        return None
    for _, _, data in storage.messages({topic}):
        message = _read(storage, topic, data)
        if message is not None and message.k[0] > 0:
            fx, cx, fy, cy = (float(message.k[i]) for i in (0, 2, 4, 5))
            return Camera(int(message.width), int(message.height), fx, fy, cx, cy)
    return None


def _kind(storage: Storage, path: Path, topic: str, allowed: tuple[str, ...]) -> str:
    if topic not in storage.topics:
        raise EvaluationError(
            f"{path}: has no topic {topic}", f"it has {', '.join(sorted(storage.topics))}"
        )
    kind = storage.topics[topic][0]
    if kind not in allowed:
        raise EvaluationError(f"{path}: {topic} is {kind}", f"use a topic of {', '.join(allowed)}")
    return kind


def _read(storage: Storage, topic: str, data: bytes) -> Any:
    try:
        return storage.deserialize(topic, data)
    except BagError:
        return None


def _stamp(message: Any) -> int:
    return int(message.header.stamp.sec) * 1_000_000_000 + int(message.header.stamp.nanosec)
