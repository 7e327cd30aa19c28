"""Bags that carry depth and poses beside the images: a robot with a depth camera and a trusted
odometry labels its own data."""

from __future__ import annotations

import logging
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
from flow3r_ros.wire.camera_choice import choose_camera
from flow3r_ros.wire.depth_images import decode_depth
from flow3r_ros.wire.frames import FrameMaker
from flow3r_ros.wire.transforms import StaticTransforms, matrix_of_pose, stamp_ns

log = logging.getLogger(__name__)

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
        self._said: set[str] = set()
        self._storage = Storage(path).__enter__()
        for topic in (topics.image, topics.depth, topics.camera_info, topics.pose):
            if topic not in self._storage.topics:
                known = ", ".join(sorted(self._storage.topics))
                raise BagError(
                    f"{path}: no topic {topic}",
                    f"set the topics of the labelled bag; it has {known}",
                )
        self._maker = FrameMaker(self._note, topics.image)
        self._take_first_info()
        self._frame_id, self.camera = self._begin()

    def stamps(self, topic: str) -> list[_Message]:
        """Header stamp and receive time of every readable message, in order of stamps."""
        found = []
        for _, received, data in self._storage.messages({topic}):
            message = self._message(topic, data)
            if message is not None:
                found.append((_time(message, received), received))
        return sorted(found)

    def poses(self) -> list[tuple[int, Float64]]:
        """(stamp, camera-to-world of the optical frame) in order of stamps."""
        static = StaticTransforms()
        if "/tf_static" in self._storage.topics:
            for _, _, data in self._storage.messages({"/tf_static"}):
                static.add(self._storage.deserialize("/tf_static", data))
        found = []
        for _, received, data in self._storage.messages({self._topics.pose}):
            message = self._message(self._topics.pose, data)
            if message is None:
                continue
            child = getattr(message, "child_frame_id", "").lstrip("/")
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
            found.append((_time(message, received), matrix_of_pose(pose) @ extrinsics))
        return sorted(found, key=lambda item: item[0])

    def picture(self, message: _Message) -> UInt8:
        """Decode one image. Raises InputError when it cannot be decoded."""
        with self._lock:
            image = self._fetch(self._topics.image, message)
        try:
            return self._maker.decode(image)
        except FrameError as error:
            raise InputError(f"{self._path}: {error}", "leave this bag out") from error

    def depth(self, message: _Message) -> Float32:
        """Decode one depth image. Raises InputError when it cannot be decoded."""
        with self._lock:
            image = self._fetch(self._topics.depth, message)
        try:
            return decode_depth(image)
        except FrameError as error:
            raise InputError(f"{self._path}: {error}", "leave this bag out") from error

    def _fetch(self, topic: str, message: _Message) -> Any:
        for _, _, data in self._storage.messages({topic}, message[1], message[1] + 1):
            found = self._message(topic, data)
            if found is not None and _time(found, message[1]) == message[0]:
                return found
        raise InputError(
            f"{self._path}: a message on {topic} can no longer be read", "leave this bag out"
        )

    def _message(self, topic: str, data: bytes) -> Any | None:
        try:
            return self._storage.deserialize(topic, data)
        except BagError:
            return None

    def _take_first_info(self) -> None:
        """Remember the first CameraInfo, and refuse the bag here already when no frame can use
        it."""
        topic = self._topics.camera_info
        for _, _, data in self._storage.messages({topic}):
            info = self._storage.deserialize(topic, data)
            self._maker.take_info(info)
            choice = choose_camera(info, None, self._topics.image)
            if choice.camera is not None and choice.camera.distortion:
                raise CameraError(
                    f"{self._path}: images of a labelled bag must be rectified",
                    "record the rectified topics",
                )
            if choice.camera is not None or not (info.width and info.height):
                return
        raise BagError(f"{self._path}: {topic} is not calibrated", "calibrate the camera")

    def _begin(self) -> tuple[str, Camera]:
        """Frame id and pinhole of the first image that decodes; it sets the range of values,
        whatever is read first."""
        topic, unusable = self._topics.image, ""
        for _, _, data in self._storage.messages({topic}):
            image = self._message(topic, data)
            if image is None:
                continue
            try:
                height, width = self._maker.decode(image).shape[:2]
            except FrameError as error:
                unusable = unusable or str(error)
                continue
            frame_id = str(image.header.frame_id).lstrip("/")
            choice = self._maker.choose((width, height), frame_id)
            if choice.camera is None:
                raise BagError(f"{self._path}: {choice.why}", "record the matching CameraInfo")
            return frame_id, pinhole(choice.camera)
        raise BagError(f"{self._path}: {topic}: no usable image {unusable}".rstrip())

    def _note(self, key: str, text: str) -> None:
        if key not in self._said:
            self._said.add(key)
            log.warning("%s: %s", self._path, text)


def _time(message: Any, received: int) -> int:
    """Header stamp, or the time of reception where there is none."""
    ns = stamp_ns(message.header.stamp)
    return ns if ns > 0 else received
