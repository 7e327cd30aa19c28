"""The processes of `flow3r bench --suite node`: a camera, our node and a straightforward node, around the same canned estimates.

    python -m flow3r_ros.ros.bench_nodes ours|plain|camera [camera: frames rate reliability]

The engine here takes no time, so what is measured is the node alone.
"""

from __future__ import annotations

import sys
import time
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from flow3r_ros.config import Config
from flow3r_ros.ros import process
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.types import Camera, Estimate, Frame, PoseSource, ScaleState, TrackingState
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import decode_image, rgb_image
from flow3r_ros.wire.outputs import TOPICS, Outputs, RunStatus
from flow3r_ros.wire.transforms import header_of, stamp_ns

WIDTH, HEIGHT = 640, 480
GRID = Camera(336, 252, 300.0, 300.0, 167.5, 125.5)


class CannedEngine:
    """Answers every frame at once with the same geometry on the default depth grid."""

    def __init__(self) -> None:
        random = np.random.default_rng(0)
        shape = (GRID.height, GRID.width)
        self.drops: Counter[str] = Counter()
        self.seams_refused = 0
        self.map = None
        self._estimate = Estimate(
            frame_id=0,
            stamp_ns=0,
            source_frame="camera",
            T_odom_cam=np.eye(4),
            covariance=np.eye(6) * 1e-4,
            depth=random.uniform(1, 5, shape).astype(np.float32),
            confidence=random.uniform(0, 1, shape).astype(np.float32),
            moving=random.uniform(0, 1, shape) > 0.9,
            rgb=random.integers(0, 255, (*shape, 3), dtype=np.uint8),
            camera=GRID,
            tracking_state=TrackingState.TRACKING,
            pose_source=PoseSource.NETWORK,
            scale_state=ScaleState.RELATIVE,
            scale_sigma=float("inf"),
        )

    def step(self, frame: Frame) -> list[Estimate]:
        """The canned estimate under the frame's stamp."""
        return [replace(self._estimate, frame_id=frame.id, stamp_ns=frame.stamp_ns)]

    def reset(self) -> None:
        """There is nothing to forget."""


def ours() -> int:
    """Our node around the canned engine."""

    def load(config: Config) -> Loaded:
        engine: Any = CannedEngine()
        return Loaded(engine, "canned", "", "", "cpu", lambda: 0.0, lambda: None)

    return process.main(sys.argv[:1], load)


def plain() -> int:
    """What one writes first: everything in the image callback, every output always built, arrays given to the message setters.

    Prints the milliseconds from reception to publication of every image.
    """
    rclpy.init()
    node = Node("flow3r")
    engine, config = CannedEngine(), Config()
    publishers = {topic: node.create_publisher(class_of(type_name), topic, 5) for topic, type_name in TOPICS.items() if topic != "~/map"}
    outputs = Outputs(_make_with_setters, config.node)
    count = 0

    def on_image(message: Any) -> None:
        nonlocal count
        start = time.monotonic()
        frame = Frame(count, stamp_ns(message.header.stamp), decode_image(message))
        count += 1
        for estimate in engine.step(frame):
            for topic, built in outputs.build(estimate, publishers, RunStatus()).items():
                publishers[topic].publish(built)
        sys.stdout.write(f"{(time.monotonic() - start) * 1e3:.3f}\n")
        sys.stdout.flush()

    node.create_subscription(class_of("sensor_msgs/msg/Image"), "image", on_image, 5)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        return 0
    return 0


def _make_with_setters(type_name: str, **fields: Any) -> Any:
    """A message filled through its public setters, bytes for binary data: the way of the tutorials."""
    message = class_of(type_name)()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            value = value.tobytes() if value.dtype == np.uint8 else value.tolist()
        setattr(message, name, value)
    return message


def camera(frames: int, rate: float, reliability: str) -> int:
    """A 640x480 colour camera; publishes once somebody listens."""
    rclpy.init()
    node = Node("camera")
    policy = ReliabilityPolicy.RELIABLE if reliability == "reliable" else ReliabilityPolicy.BEST_EFFORT
    images = node.create_publisher(class_of("sensor_msgs/msg/Image"), "image", QoSProfile(depth=5, reliability=policy))
    infos = node.create_publisher(class_of("sensor_msgs/msg/CameraInfo"), "camera_info", 5)
    rgb = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
    intrinsics = Camera(WIDTH, HEIGHT, 550.0, 550.0, 319.5, 239.5)
    while not images.get_subscription_count():
        time.sleep(0.05)
    time.sleep(2.0)
    start = time.monotonic()
    for index in range(frames):
        header = header_of(make, time.time_ns(), "camera")
        infos.publish(info_from_camera(make, header, intrinsics))
        images.publish(rgb_image(make, header, rgb))
        time.sleep(max(0.0, start + (index + 1) / rate - time.monotonic()))
    time.sleep(1.0)
    rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours"]:
            sys.exit(ours())
        case ["plain"]:
            sys.exit(plain())
        case ["camera", frames, rate, reliability]:
            sys.exit(camera(int(frames), float(rate), reliability))
        case _:
            sys.exit(__doc__)
