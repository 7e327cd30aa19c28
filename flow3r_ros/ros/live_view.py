"""`flow3r view --live`: what a running node publishes, handed to a viewer.

The node is watched, not changed: this one subscribes to its odometry, status, depth, clouds and to
tf, and gives each message on as numpy. Everything is placed in the node's odometry frame.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from sensor_msgs.msg import CameraInfo, Image, PointCloud2
from tf2_msgs.msg import TFMessage

from flow3r_ros.errors import FrameError
from flow3r_ros.msg import TrackingStatus
from flow3r_ros.ros import qos
from flow3r_ros.ros.once import Once
from flow3r_ros.types import Camera, Float32, Float64, TrackingState, UInt8
from flow3r_ros.wire.camera_choice import choose_camera
from flow3r_ros.wire.clouds import points_of
from flow3r_ros.wire.depth_images import decode_depth
from flow3r_ros.wire.transforms import StaticTransforms, matrix_of_pose, stamp_ns

DEPTH = 20
"""messages that may wait while the viewer is busy"""
HEAR_S = 0.2
"""how often signals are heard"""


class Viewer(Protocol):
    """What a viewer is told (`offline.rerun_log.RerunLog`)."""

    def at(self, stamp_ns: int, pose: Float64, state: TrackingState, segment: int = 0) -> None:
        """The camera at a stamp."""

    def keyframe(self, pose: Float64) -> None:
        """A keyframe of that stamp."""

    def count(self, name: str, value: float) -> None:
        """A number of that stamp."""

    def picture(self, camera: Camera, depth: Float32, rgb: UInt8 | None = None) -> None:
        """The depth of that stamp."""

    def cloud(self, path: str, points: Float32, colors: UInt8, static: bool = False) -> None:
        """Points, in the world or below the camera."""


class LiveView(Node):  # type: ignore[misc]
    """Hands the outputs of the node `name` (with its namespace, if it has one) to a viewer."""

    def __init__(self, viewer: Viewer, name: str = "flow3r") -> None:
        super().__init__("flow3r_view")
        self._viewer = viewer
        self._say = Once(self.get_logger())
        self._mounted = StaticTransforms()
        self._state, self._segment = TrackingState.INITIALIZING, 0
        self._optical = ""
        self._latest: tuple[int, Float64] = (0, np.eye(4))
        self._keyframe_ns, self._loops = -1, 0
        self._info: Any = None
        self._watched = self.resolve_topic_name(f"{name}/odometry")
        for kind, topic, take in (
            (TrackingStatus, "status", self._on_status),
            (Odometry, "odometry", self._on_odometry),
            (CameraInfo, "depth/camera_info", self._on_info),
            (Image, "depth/image", self._on_depth),
            (PointCloud2, "points", self._on_points),
            (PointCloud2, "map", self._on_map),
        ):
            profile = qos.STATIC if topic == "map" else DEPTH
            self.create_subscription(kind, f"{name}/{topic}", take, profile)
        self.create_subscription(TFMessage, "/tf_static", self._mounted.add, qos.STATIC)
        self.create_timer(5.0, self._look)

    def _look(self) -> None:
        if not self.count_publishers(self._watched):
            self._say("nobody", f"nobody publishes {self._watched} yet: is the node running?")

    def _on_status(self, message: Any) -> None:
        self._state = list(TrackingState)[message.state]
        self._segment = int(message.segment)
        self._optical = message.header.frame_id
        self._loops = int(message.loops_closed)
        if message.keyframe:
            self._keyframe_ns = stamp_ns(message.header.stamp)
        self._show_keyframe()

    def _on_odometry(self, message: Any) -> None:
        """The camera stands where its robot is, through the static extrinsics."""
        child = message.child_frame_id
        mounted = self._mounted.lookup(child, self._optical or child)
        if mounted is None:
            self._say("tf", f"no static transform {child} -> {self._optical}: {child} is shown")
        pose = matrix_of_pose(message.pose.pose)
        placed = pose if mounted is None else pose @ mounted
        self._latest = stamp_ns(message.header.stamp), placed
        self._viewer.at(*self._latest, self._state, self._segment)
        self._viewer.count("loops", self._loops)
        self._show_keyframe()

    def _show_keyframe(self) -> None:
        """Status and odometry of one stamp come in either order."""
        stamp, pose = self._latest
        if stamp == self._keyframe_ns and self._state.has_pose:
            self._viewer.keyframe(pose)
            self._keyframe_ns = -1

    def _on_info(self, message: Any) -> None:
        self._info = message

    def _on_depth(self, message: Any) -> None:
        camera = choose_camera(self._info).camera
        if camera is None:
            return
        try:
            self._viewer.picture(camera, decode_depth(message))
        except FrameError as error:
            self._say(error.reason, str(error))

    def _on_points(self, message: Any) -> None:
        """In the camera, or already in the odometry frame."""
        inside = message.header.frame_id == self._optical
        self._viewer.cloud("world/camera/points" if inside else "world/points", *points_of(message))

    def _on_map(self, message: Any) -> None:
        self._viewer.cloud("world/map", *points_of(message))


def watch(viewer: Viewer, name: str, arguments: Sequence[str] = ()) -> int:
    """Hand on what the node publishes until a signal; `arguments` are ROS's."""
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    rclpy.init(args=["flow3r_view", *arguments], signal_handler_options=SignalHandlerOptions.NO)
    node = LiveView(viewer, name)
    try:
        while not stop.is_set():
            rclpy.spin_once(node, timeout_sec=HEAR_S)
    except ExternalShutdownException:
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0
