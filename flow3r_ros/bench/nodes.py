"""The processes of `flow3r bench --suite node`: a camera, our node and a straightforward node,
around the same canned estimates.

    python -m flow3r_ros.bench.nodes ours|plain [--ros-args ...]
    python -m flow3r_ros.bench.nodes camera FRAMES RATE RELIABILITY NAMESPACE...

The engine here takes no time, so what is measured is the node alone. Both nodes print, for every
image, the milliseconds from the start of its callback to the end of the last publication.
"""

from __future__ import annotations

import sys
import time
from collections import Counter, deque
from dataclasses import replace
from typing import Any

import numpy as np
import rclpy
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from flow3r_ros.config import Config
from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.ros import process
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.ros.node import Flow3rNode
from flow3r_ros.ros.worker import Outcome
from flow3r_ros.types import Camera, Estimate, Frame, PoseSource, ScaleState, TrackingState
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.frames import FrameMaker
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.outputs import TOPICS, Outputs, RunStatus
from flow3r_ros.wire.transforms import header_of, pose_of, stamp_ns

WIDTH, HEIGHT = 640, 480
PATIENCE_S = 60.0
"""longest wait of the camera for the nodes"""
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

    def step(self, frame: Frame, depth: bool = True) -> list[Estimate]:
        """The canned estimate under the frame's stamp."""
        return [replace(self._estimate, frame_id=frame.id, stamp_ns=frame.stamp_ns)]

    def reset(self) -> None:
        """There is nothing to forget."""


class _Timed(Flow3rNode):
    """Our node, printing what every image took."""

    def _on_published(self, outcome: Outcome, age_ms: float) -> None:
        _report(outcome.received_at)
        super()._on_published(outcome, age_ms)


def _report(received_at: float) -> None:
    sys.stdout.write(f"{(time.monotonic() - received_at) * 1e3:.3f}\n")
    sys.stdout.flush()


def ours() -> int:
    """Our node around the canned engine."""

    def load(config: Config) -> Loaded:
        engine: Any = CannedEngine()
        return Loaded(engine, "canned", "", "", "cpu", lambda: 0.0, lambda: None)

    return process.main(sys.argv, load, _Timed)


def plain() -> int:
    """What one writes first: everything in the image callback, every output always built, messages
    filled through their setters."""
    rclpy.init(args=sys.argv)
    node = Node("flow3r")
    engine, config = CannedEngine(), Config()
    publishers = {
        topic: node.create_publisher(class_of(type_name), topic, 5)
        for topic, type_name in TOPICS.items()
        if topic != "~/map"
    }
    outputs = Outputs(
        _make_with_setters,
        config.node,
        lambda kept: worth_showing(kept, config.cloud.edge_ratio),
    )
    path: deque[Any] = deque(maxlen=config.node.max_path)
    maker = FrameMaker(lambda key, text: None)
    count = 0

    def on_image(message: Any) -> None:
        nonlocal count
        received_at = time.monotonic()
        frame = maker.frame(message, count, 0)
        count += 1
        for estimate in engine.step(frame):
            messages = outputs.build(estimate, publishers.keys() - {"~/path"}, RunStatus())
            header = header_of(make, estimate.stamp_ns, "odom")
            pose = pose_of(make, estimate.T_odom_cam)
            path.append(
                _make_with_setters("geometry_msgs/msg/PoseStamped", header=header, pose=pose)
            )
            messages["~/path"] = _make_with_setters(
                "nav_msgs/msg/Path", header=header, poses=list(path)
            )
            for topic, built in messages.items():
                publishers[topic].publish(built)
        _report(received_at)

    node.create_subscription(
        class_of("sensor_msgs/msg/CameraInfo"), "camera_info", lambda message: None, 5
    )
    node.create_subscription(class_of("sensor_msgs/msg/Image"), "image", on_image, 5)
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, rclpy.executors.ExternalShutdownException):
        return 0
    return 0


def _make_with_setters(type_name: str, **fields: Any) -> Any:
    """A message filled through its public setters, bytes for binary data: the way of the
    tutorials."""
    message = class_of(type_name)()
    for name, value in fields.items():
        if isinstance(value, np.ndarray):
            value = value.tobytes() if value.dtype == np.uint8 else value.tolist()
        setattr(message, name, value)
    return message


def camera(frames: int, rate: float, reliability: str, namespaces: list[str]) -> int:
    """A 640x480 colour camera that serves the nodes of several namespaces in turn, each only once
    it has answered.

    Prints how many images the last node has received, estimated and dropped by then, and a line
    when all are sent; then stays until its input ends, so that the node can still fetch the last
    images.
    """
    rclpy.init()
    node = Node("camera")
    feeds = [_Feed(node, namespace, reliability) for namespace in namespaces]
    for feed in feeds:
        counts = feed.wait_for_an_answer()
    sys.stdout.write(f"{' '.join(map(str, counts))}\n")
    sys.stdout.flush()
    start = time.monotonic()
    for index in range(frames):
        feeds[index % len(feeds)].publish()
        time.sleep(max(0.0, start + (index + 1) / rate - time.monotonic()))
    sys.stdout.write("sent\n")
    sys.stdout.flush()
    sys.stdin.read()
    rclpy.try_shutdown()
    return 0


class _Feed:
    """Images and CameraInfo for the node of one namespace."""

    def __init__(self, node: Node, namespace: str, reliability: str) -> None:
        self._node = node
        policy = (
            ReliabilityPolicy.RELIABLE
            if reliability == "reliable"
            else ReliabilityPolicy.BEST_EFFORT
        )
        qos = QoSProfile(depth=5, reliability=policy)
        self._images = node.create_publisher(
            class_of("sensor_msgs/msg/Image"), f"{namespace}/image", qos
        )
        self._infos = node.create_publisher(
            class_of("sensor_msgs/msg/CameraInfo"), f"{namespace}/camera_info", 5
        )
        self._answered: dict[int, tuple[int, int, int]] = {}
        self._status = node.create_subscription(
            class_of("flow3r_ros/msg/TrackingStatus"),
            f"{namespace}/flow3r/status",
            self._on_status,
            5,
        )
        self._rgb = np.random.default_rng(1).integers(0, 255, (HEIGHT, WIDTH, 3), dtype=np.uint8)
        self._intrinsics = Camera(WIDTH, HEIGHT, 550.0, 550.0, 319.5, 239.5)

    def publish(self, shrink: int = 1) -> int:
        """Send one image with its CameraInfo; its stamp."""
        ns = time.time_ns()
        header = header_of(make, ns, "camera")
        self._infos.publish(
            info_from_camera(
                make, header, scaled(self._intrinsics, WIDTH // shrink, HEIGHT // shrink)
            )
        )
        self._images.publish(rgb_image(make, header, self._rgb[::shrink, ::shrink]))
        return ns

    def wait_for_an_answer(self) -> tuple[int, int, int]:
        """Send small images, which arrive over any transport, one after the other until the node
        has answered one.

        Returns its counts of received, estimated and dropped images.
        """
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            ns, deadline = self.publish(shrink=10), time.monotonic() + 1.0
            while ns not in self._answered and time.monotonic() < deadline:
                rclpy.spin_once(self._node, timeout_sec=0.1)
            if ns in self._answered:
                self._node.destroy_subscription(self._status)
                return self._answered[ns]
        raise EvaluationError(
            "the node under measurement answers no image",
            "run python -m flow3r_ros.bench.nodes ours by hand",
        )

    def _on_status(self, message: Any) -> None:
        counts = (
            int(message.frames_received),
            int(message.frames_estimated),
            int(sum(message.drop_counts)),
        )
        self._answered[stamp_ns(message.header.stamp)] = counts


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["ours", *_]:
            sys.exit(ours())
        case ["plain", *_]:
            sys.exit(plain())
        case ["camera", frames, rate, reliability, *namespaces]:
            sys.exit(camera(int(frames), float(rate), reliability, namespaces))
        case _:
            sys.exit(__doc__)
