"""True poses and depth that a bag itself carries, on topics the user names."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.bags.storage import Storage
from flow3r_ros.errors import BagError, EvaluationError, FrameError
from flow3r_ros.geometry.camera import pinhole
from flow3r_ros.geometry.lie import matrix_from_quaternion, rigid
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Camera, Float32, Float64
from flow3r_ros.wire.camera_choice import base_topic, choose_camera
from flow3r_ros.wire.depth_images import decode_depth

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
        EvaluationError: the topic is missing or holds no images, or the first of them is no depth
            image.
    """
    readers: dict[int, DepthReader] = {}
    with Storage(path) as storage:
        _kind(storage, path, topic, ("sensor_msgs/msg/Image", "sensor_msgs/msg/CompressedImage"))
        base = base_topic(topic)
        info = _info(storage, base.rsplit("/", 1)[0] + "/camera_info")
        step = max(1, -(-storage.topics[topic][1] // limit))
        for _, _, data in islice(storage.messages({topic}), 0, None, step):
            message = _read(storage, topic, data)
            if message is None:
                continue
            if not readers:
                _decoded(message, f"{path}: {topic}")
            readers[_stamp(message)] = partial(_depth, message, f"{path}: {topic}", info, base)
    return readers


def _depth(message: Any, where: str, info: Any | None, topic: str) -> tuple[Float32, Camera | None]:
    values = _decoded(message, where)
    if np.isfinite(values).any() and (middle := float(np.nanmedian(values))) > FARTHEST_M:
        raise EvaluationError(
            f"a depth image has a median of {middle:.0f} m: 32FC1 is in metres (REP "
            "118), this looks like millimetres"
        )
    size = values.shape[1], values.shape[0]
    camera = choose_camera(info, size, topic, str(message.header.frame_id)).camera
    if camera is None and info is not None and 0 < info.width != size[0]:
        raise EvaluationError(
            f"depth of {size[0]}x{size[1]} pixels has intrinsics for {info.width}x{info.height}",
            "record the depth camera's own CameraInfo",
        )
    return values, pinhole(camera) if camera is not None else None


def _decoded(message: Any, where: str) -> Float32:
    try:
        return decode_depth(message)
    except FrameError as error:
        raise EvaluationError(f"{where}: {error.what}", error.cure) from error


def _info(storage: Storage, topic: str) -> Any | None:
    if topic not in storage.topics:
        return None
    for _, _, data in storage.messages({topic}):
        message = _read(storage, topic, data)
        if message is not None:
            return message
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
