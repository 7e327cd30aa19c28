"""Bags that carry depth and poses beside the images: a robot with a depth camera and a trusted
odometry labels its own data."""

from __future__ import annotations

import threading
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field

from flow3r_ros.bags.storage import Storage
from flow3r_ros.config import Settings
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import BagError, CameraError, FrameError, InputError
from flow3r_ros.geometry.camera import pinhole
from flow3r_ros.geometry.trajectory import nearest_stamp, pose_at
from flow3r_ros.types import Camera, Float32, Float64, UInt8
from flow3r_ros.wire.camera_info import camera_from_info
from flow3r_ros.wire.images import decode_compressed, decode_image
from flow3r_ros.wire.transforms import StaticTransforms, matrix_of_pose, stamp_ns

_DEPTH_GAP_NS = 50_000_000
"""largest distance of an image and its depth"""
_POSE_GAP_NS = 500_000_000
"""longest gap that poses are interpolated over"""
_Message = tuple[int, int]
"""header stamp, receive time (int nanoseconds)"""


class BagTopics(Settings):
    """Topics of a labelled bag."""

    image: str = Field(
        "/camera/image", description="sensor_msgs/Image or CompressedImage, rectified"
    )
    depth: str = Field(
        "/camera/depth/image",
        description="sensor_msgs/Image registered to the image: 32FC1 metres or 16UC1 millimetres",
    )
    camera_info: str = Field(
        "/camera/camera_info", description="sensor_msgs/CameraInfo of the image"
    )
    pose: str = Field(
        "/odom", description="nav_msgs/Odometry, or geometry_msgs/PoseStamped of the optical frame"
    )


def open_labelled_bag(path: Path, topics: BagTopics | None = None) -> Sequence:
    """Frames of a bag that have depth within 50 ms and a pose on either side; poses are
    interpolated to the image's stamp.

    A pose of another frame (Odometry's child) is moved to the optical frame through `/tf_static`.
    Raises BagError when a topic is missing or no frame has everything.
    """
    topics = topics or BagTopics()
    reader = _LabelledBag(path, topics)
    depths = reader.stamps(topics.depth)
    poses = reader.poses()
    depth_stamps = [stamp for stamp, _ in depths]
    pose_stamps, tracked = [stamp for stamp, _ in poses], [pose for _, pose in poses]
    shots = []
    for image in reader.stamps(topics.image):
        depth = nearest_stamp(depth_stamps, image[0], _DEPTH_GAP_NS)
        pose = pose_at(pose_stamps, tracked, image[0], _POSE_GAP_NS)
        if depth is not None and pose is not None:
            picture, measured = (
                partial(reader.picture, image),
                partial(reader.depth, depths[depth]),
            )
            shots.append(Shot(path, image[0], reader.camera, pose, measured, None, picture))
    if not shots:
        raise BagError(
            f"{path}: no image has both depth and pose",
            f"check the topics {topics.image}, {topics.depth}, {topics.pose}",
        )
    return Sequence(path.stem, tuple(shots))


class _LabelledBag:
    """The open bag behind the readers of a sequence; messages are fetched by receive time, one
    thread at a time."""

    def __init__(self, path: Path, topics: BagTopics) -> None:
        self._path, self._topics, self._lock = path, topics, threading.Lock()
        self._storage = Storage(path).__enter__()
        for topic in (topics.image, topics.depth, topics.camera_info, topics.pose):
            if topic not in self._storage.topics:
                known = ", ".join(sorted(self._storage.topics))
                raise BagError(
                    f"{path}: no topic {topic}",
                    f"set the topics of the labelled bag; it has {known}",
                )
        self.camera = self._first_camera()
        self._frame_id = ""

    def stamps(self, topic: str) -> list[_Message]:
        """Header stamp and receive time of every readable message, in order of stamps."""
        found = []
        for _, received, data in self._storage.messages({topic}):
            message = self._message(topic, data)
            if message is not None:
                found.append((stamp_ns(message.header.stamp), received))
                self._frame_id = (
                    message.header.frame_id if topic == self._topics.image else self._frame_id
                )
        return sorted(found)

    def poses(self) -> list[tuple[int, Float64]]:
        """(stamp, camera-to-world of the optical frame) in order of stamps."""
        static = StaticTransforms()
        if "/tf_static" in self._storage.topics:
            for _, _, data in self._storage.messages({"/tf_static"}):
                static.add(self._storage.deserialize("/tf_static", data))
        for _, _, data in self._storage.messages({self._topics.image}):
            image = self._message(self._topics.image, data)
            if image is not None:
                self._frame_id = image.header.frame_id
                break
        found = []
        for _, _, data in self._storage.messages({self._topics.pose}):
            message = self._message(self._topics.pose, data)
            if message is None:
                continue
            child = getattr(message, "child_frame_id", "")
            extrinsics = (
                static.lookup(child, self._frame_id)
                if child and child != self._frame_id
                else np.eye(4)
            )
            if extrinsics is None:
                raise BagError(
                    f"{self._path}: /tf_static does not connect {child} and {self._frame_id}",
                    "record /tf_static too",
                )
            pose = message.pose.pose if child else message.pose
            found.append((stamp_ns(message.header.stamp), matrix_of_pose(pose) @ extrinsics))
        return sorted(found, key=lambda item: item[0])

    def picture(self, message: _Message) -> UInt8:
        """Decode one image. Raises InputError when it cannot be decoded."""
        with self._lock:
            image = self._fetch(self._topics.image, message)
        compressed = self._storage.topics[self._topics.image][0].endswith("CompressedImage")
        try:
            return decode_compressed(image) if compressed else decode_image(image)
        except FrameError as error:
            raise InputError(f"{self._path}: {error.what}", "leave this bag out") from error

    def depth(self, message: _Message) -> Float32:
        """Decode one depth image. Raises InputError when it cannot be decoded."""
        with self._lock:
            image = self._fetch(self._topics.depth, message)
        return decode_depth(image)

    def _fetch(self, topic: str, message: _Message) -> Any:
        for _, _, data in self._storage.messages({topic}, message[1], message[1] + 1):
            found = self._message(topic, data)
            if found is not None and stamp_ns(found.header.stamp) == message[0]:
                return found
        raise InputError(
            f"{self._path}: a message on {topic} can no longer be read", "leave this bag out"
        )

    def _message(self, topic: str, data: bytes) -> Any | None:
        try:
            return self._storage.deserialize(topic, data)
        except BagError:
            return None

    def _first_camera(self) -> Camera:
        for _, _, data in self._storage.messages({self._topics.camera_info}):
            camera = camera_from_info(self._storage.deserialize(self._topics.camera_info, data))
            if camera is not None:
                if camera.distortion:
                    raise CameraError(
                        f"{self._path}: images of a labelled bag must be rectified",
                        "record the rectified topics",
                    )
                return pinhole(camera)
        raise BagError(
            f"{self._path}: {self._topics.camera_info} is not calibrated", "calibrate the camera"
        )


def decode_depth(message: Any) -> Float32:
    """Metres float32 `[h, w]` (NaN = invalid) of a 32FC1 or 16UC1 `sensor_msgs/Image`. Raises
    InputError for other encodings."""
    kinds: dict[str, tuple[np.dtype[Any], float]] = {
        "32FC1": (np.dtype("f4"), 1.0),
        "16UC1": (np.dtype("u2"), 1e-3),
        "mono16": (np.dtype("u2"), 1e-3),
    }
    if message.encoding not in kinds:
        raise InputError(
            f"depth encoding {message.encoding} is not known",
            "use 32FC1 (metres) or 16UC1 (millimetres)",
        )
    kind, unit = kinds[message.encoding]
    data = np.frombuffer(bytes(message.data), np.uint8)
    rows, step, width = int(message.height), int(message.step), int(message.width)
    if len(data) < rows * step or step < width * kind.itemsize:
        raise InputError("a depth image is shorter than its header says", "leave this bag out")
    packed = np.ascontiguousarray(
        data[: rows * step].reshape(rows, step)[:, : width * kind.itemsize]
    )
    depth = packed.view(kind.newbyteorder(">" if message.is_bigendian else "<")).astype(
        np.float32
    ) * np.float32(unit)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return np.asarray(depth)
