"""Bags that carry poses beside the images, and depth where there is a depth camera: a robot with a
trusted odometry labels its own data, in metres."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
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
from flow3r_ros.wire.transforms import (
    StaticTransforms,
    matrix_of_pose,
    matrix_of_transform,
    stamp_ns,
)

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
        description="sensor_msgs/Image registered to the image: 32FC1 metres or 16UC1 millimetres; "
        "empty: there is none, training triangulates it from the poses",
    )
    camera_info: str = Field(
        "/camera/camera_info", description="sensor_msgs/CameraInfo of the image"
    )
    pose: str = Field(
        "/odom",
        description="nav_msgs/Odometry, geometry_msgs/PoseStamped of the optical frame, or "
        "tf2_msgs/TFMessage (/tf)",
    )
    fixed_frame: str = Field("odom", description="parent of the edges that poses on /tf are")


def open_labelled_bag(path: Path, topics: BagTopics | None = None) -> Sequence:
    """Frames of a bag that have a pose on either side and, unless `topics.depth` is empty, depth
    within 50 ms; poses are interpolated to the image's stamp.

    A pose of another frame (the child of Odometry or of tf) is moved to the optical frame through
    `/tf_static`. Raises BagError when a topic is missing or no frame has everything.
    """
    topics = topics or BagTopics()
    reader = _LabelledBag(path, topics)
    depths = reader.stamps(topics.depth) if topics.depth else []
    poses = reader.poses()
    depth_stamps = [stamp for stamp, _ in depths]
    pose_stamps, tracked = [stamp for stamp, _ in poses], [pose for _, pose in poses]
    shots = []
    for image in reader.stamps(topics.image):
        depth = nearest_stamp(depth_stamps, image[0], _DEPTH_GAP_NS)
        pose = pose_at(pose_stamps, tracked, image[0], _POSE_GAP_NS)
        if pose is None or (topics.depth and depth is None):
            continue
        measured = partial(reader.depth, depths[depth]) if depth is not None else None
        picture = partial(reader.picture, image)
        shots.append(Shot(path, image[0], reader.camera, pose, measured, None, picture))
    if not shots:
        what = "both depth and pose" if topics.depth else "a pose"
        wanted = [name for name in (topics.image, topics.depth, topics.pose) if name]
        raise BagError(f"{path}: no image has {what}", f"check the topics {', '.join(wanted)}")
    return Sequence(path.stem, tuple(shots))


class _LabelledBag:
    """The open bag behind the readers of a sequence; messages are fetched by receive time, one
    thread at a time."""

    def __init__(self, path: Path, topics: BagTopics) -> None:
        self._path, self._topics, self._lock = path, topics, threading.Lock()
        self._said: set[str] = set()
        self._storage = Storage(path).__enter__()
        for topic in filter(None, (topics.image, topics.depth, topics.camera_info, topics.pose)):
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
            for ns, child, pose in self._poses_of(message, received):
                found.append((ns, pose @ self._extrinsics(static, child)))
        return sorted(found, key=lambda item: item[0])

    def _poses_of(self, message: Any, received: int) -> Iterator[tuple[int, str, Float64]]:
        """(stamp, frame that it is the pose of, pose) of a message of poses."""
        for edge in getattr(message, "transforms", ()):
            if edge.header.frame_id.lstrip("/") == self._topics.fixed_frame:
                child = edge.child_frame_id.lstrip("/")
                yield _time(edge, received), child, matrix_of_transform(edge.transform)
        if hasattr(message, "pose"):
            child = getattr(message, "child_frame_id", "").lstrip("/")
            pose = message.pose.pose if hasattr(message.pose, "pose") else message.pose
            yield _time(message, received), child, matrix_of_pose(pose)

    def _extrinsics(self, static: StaticTransforms, child: str) -> Float64:
        """`T_child_optical` `[4, 4]`; a pose without a child is that of the optical frame."""
        if not child or child == self._frame_id:
            return np.eye(4)
        found = static.lookup(child, self._frame_id)
        if found is None:
            raise BagError(
                f"{self._path}: /tf_static does not connect {child} and {self._frame_id}",
                "record /tf_static too",
            )
        return found

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
