"""Small bags made to order."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.rosbag1 import Writer as Ros1Writer
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.types import make, ros1_types, ros2_types
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of, pose_of, tf_message

CAMERA = Camera(64, 48, 60.0, 61.0, 31.0, 24.0)
START = 1_700_000_000_123_456_789
STEP = 33_333_333


@lru_cache(maxsize=1024)
def picture(index: int, width: int = 64, height: int = 48) -> np.ndarray:
    """Random texture moving by one pixel a frame: neighbouring frames correspond."""
    texture = np.random.default_rng(7).integers(0, 255, (height + 400, width + 400, 3), np.uint8)
    smooth = cv2.GaussianBlur(texture, (0, 0), 2.0)
    at = index % 400
    return np.ascontiguousarray(smooth[at : at + height, at : at + width])


def compressed(header: Any, rgb: np.ndarray, kind: str = "jpeg") -> Any:
    _, data = cv2.imencode(f".{kind}", cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR))
    return make(
        "sensor_msgs/msg/CompressedImage", header=header, format=kind, data=data.reshape(-1)
    )


def image_messages(
    frames: int, kind: str = "raw", size: tuple[int, int] = (64, 48), stamp_zero: bool = False
) -> list[tuple[int, Any]]:
    out = []
    for index in range(frames):
        ns = START + index * STEP
        header = header_of(make, 0 if stamp_zero else ns, "cam_optical")
        rgb = picture(index, *size)
        out.append(
            (
                ns + 1000,
                rgb_image(make, header, rgb) if kind == "raw" else compressed(header, rgb, kind),
            )
        )
    return out


def standard_topics(
    frames: int = 6, kind: str = "raw", **options: Any
) -> dict[str, tuple[str, list[tuple[int, Any]]]]:
    """Images, CameraInfo, /tf_static and /odom, as a small robot records them."""
    name, type_name = (
        ("/cam/image", "Image") if kind == "raw" else ("/cam/image/compressed", "CompressedImage")
    )
    T = np.eye(4)
    T[:3, 3] = (0.1, 0.2, 0.3)
    infos, odometry = [], []
    for index in range(frames):
        ns = START + index * STEP
        infos.append((ns + 500, info_from_camera(make, header_of(make, ns, "cam_optical"), CAMERA)))
        pose = np.eye(4)
        pose[0, 3] = 0.1 * index
        zero = make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
        twist = make("geometry_msgs/msg/Twist", linear=zero, angular=zero)
        message = make(
            "nav_msgs/msg/Odometry",
            header=header_of(make, ns, "odom"),
            child_frame_id="base",
            pose=make(
                "geometry_msgs/msg/PoseWithCovariance",
                pose=pose_of(make, pose),
                covariance=np.zeros(36),
            ),
            twist=make(
                "geometry_msgs/msg/TwistWithCovariance", twist=twist, covariance=np.zeros(36)
            ),
        )
        odometry.append((ns + 700, message))
    return {
        "/tf_static": (
            "tf2_msgs/msg/TFMessage",
            [(START, tf_message(make, START, "base", "cam_optical", T))],
        ),
        "/cam/camera_info": ("sensor_msgs/msg/CameraInfo", infos),
        name: (f"sensor_msgs/msg/{type_name}", image_messages(frames, kind, **options)),
        "/odom": ("nav_msgs/msg/Odometry", odometry),
    }


def write_bag(
    folder: Path,
    topics: dict[str, tuple[str, list[tuple[int, Any]]]],
    storage: str = "mcap",
    compression: str = "",
) -> Path:
    """rosbag2 with the messages merged in time order; `compression`: storage, file or message
    (zstd)."""
    plugin = StoragePlugin.MCAP if storage == "mcap" else StoragePlugin.SQLITE3
    writer = Writer(folder, version=9, storage_plugin=plugin)
    if compression:
        writer.set_compression(CompressionMode[compression.upper()], CompressionFormat.ZSTD)
    store = ros2_types()
    with writer:
        connections = {
            topic: writer.add_connection(topic, kind, typestore=store)
            for topic, (kind, _) in topics.items()
        }
        merged = sorted(
            ((ns, topic, message) for topic, (_, items) in topics.items() for ns, message in items),
            key=lambda item: item[0],
        )
        for ns, topic, message in merged:
            writer.write(connections[topic], ns, store.serialize_cdr(message, topics[topic][0]))
    return folder


def write_ros1_bag(path: Path, frames: int = 4) -> Path:
    """ROS 1 bag with raw images and CameraInfo."""
    store = ros1_types()
    kinds = store.types

    def header(index: int) -> Any:
        ns = START + index * STEP
        stamp = kinds["builtin_interfaces/msg/Time"](sec=ns // 10**9, nanosec=ns % 10**9)
        return kinds["std_msgs/msg/Header"](seq=index, stamp=stamp, frame_id="cam_optical")

    with Ros1Writer(path) as writer:
        images = writer.add_connection("/cam/image", "sensor_msgs/msg/Image", typestore=store)
        infos = writer.add_connection(
            "/cam/camera_info", "sensor_msgs/msg/CameraInfo", typestore=store
        )
        for index in range(frames):
            fields = dict(height=48, width=64, encoding="bgr8", is_bigendian=0, step=192)
            data = np.ascontiguousarray(picture(index)[..., ::-1]).reshape(-1)
            image = kinds["sensor_msgs/msg/Image"](header=header(index), data=data, **fields)
            roi = kinds["sensor_msgs/msg/RegionOfInterest"](
                x_offset=0, y_offset=0, height=0, width=0, do_rectify=False
            )
            info = kinds["sensor_msgs/msg/CameraInfo"](
                header=header(index),
                height=48,
                width=64,
                distortion_model="plumb_bob",
                D=np.zeros(5),
                K=CAMERA.matrix.reshape(-1),
                R=np.eye(3).reshape(-1),
                P=np.zeros(12),
                binning_x=0,
                binning_y=0,
                roi=roi,
            )
            ns = START + index * STEP
            writer.write(infos, ns, store.serialize_ros1(info, "sensor_msgs/msg/CameraInfo"))
            writer.write(images, ns + 5, store.serialize_ros1(image, "sensor_msgs/msg/Image"))
    return path


def stamps(path: Path, **options: object) -> list[int]:
    """Stamps of the frames that a bag gives."""
    with BagReader(path) as reader:
        return [frame.stamp_ns for frame in reader.frames(**options)]  # type: ignore[arg-type]
