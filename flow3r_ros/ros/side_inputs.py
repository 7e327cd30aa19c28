"""What the node takes in beside images and their CameraInfo: static transforms, wheel odometry, an
inertial unit, and a mask of pixels that are not to be looked at. Each is optional."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from rclpy.callback_groups import CallbackGroup
from rclpy.node import Node

from flow3r_ros.config import Config
from flow3r_ros.errors import FrameError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.ros import qos
from flow3r_ros.ros.framing import Framing
from flow3r_ros.ros.inputs import Input
from flow3r_ros.ros.messages import class_of
from flow3r_ros.ros.worker import Worker
from flow3r_ros.types import Inertial
from flow3r_ros.wire.frames import Say
from flow3r_ros.wire.imu import ImuReader
from flow3r_ros.wire.transforms import StaticTransforms, matrix_of_pose, stamp_ns


class SideInputs:
    """The subscriptions of an active node; see the module.

    Args:
        worker, engine: readings reach the engine through the worker, in order with the images.
        framing: takes the masks.
        static: is filled from `/tf_static`.
    """

    def __init__(
        self,
        node: Node,
        config: Config,
        group: CallbackGroup,
        worker: Worker,
        engine: Engine,
        framing: Framing,
        static: StaticTransforms,
        say: Say,
    ) -> None:
        self._node, self._group, self._say = node, group, say
        self._worker, self._engine, self._framing = worker, engine, framing
        self._imu = ImuReader(static, config.node.base_frame, say)
        self._optical_frame = ""
        self._inputs = [self._open("mask", "sensor_msgs/msg/Image", self._on_mask, latched=True)]
        if config.scale.source == "odometry":
            self._inputs.append(self._open("odom", "nav_msgs/msg/Odometry", self._on_odometry))
        if config.tracking.imu:
            self._inputs.append(self._open("imu", "sensor_msgs/msg/Imu", self._on_imu))
        self._static = node.create_subscription(
            class_of("tf2_msgs/msg/TFMessage"),
            "/tf_static",
            static.add,
            qos.STATIC,
            callback_group=group,
        )

    def saw_image(self, optical_frame: str) -> None:
        """An image of that frame comes next."""
        if optical_frame != self._optical_frame:
            self._optical_frame = optical_frame
            self._feel(self._imu.readings(None, optical_frame))

    def follow(self) -> None:
        """Look at the publishers, as `Input.follow`."""
        for source in self._inputs:
            source.follow()

    def close(self) -> None:
        """Receive nothing more."""
        for source in self._inputs:
            source.close()
        self._node.destroy_subscription(self._static)

    def _open(
        self, topic: str, kind: str, receive: Callable[[Any, float], None], latched: bool = False
    ) -> Input:
        return Input(
            self._node, topic, kind, qos.SIDE_DEPTH, "auto", self._group, receive,
            lambda count: None, self._say, latched,
        )  # fmt: skip

    def _on_mask(self, message: Any, received_at: float) -> None:
        """The pixels to ignore from the next image on."""
        try:
            self._framing.take_mask(message)
        except FrameError as error:
            self._say("mask", f"mask: {error}")

    def _on_imu(self, message: Any, received_at: float) -> None:
        """A reading; the engine gets it once the optical frame is known."""
        self._feel(self._imu.readings(message, self._optical_frame))

    def _feel(self, readings: list[Inertial]) -> None:
        for reading in readings:
            self._worker.post(partial(self._engine.add_inertial, reading))

    def _on_odometry(self, message: Any, received_at: float) -> None:
        """A pose of the wheels, for the scale."""
        pose = matrix_of_pose(message.pose.pose)
        if not np.isfinite(pose).all():
            self._say("odom", "odom: poses that are not finite are ignored")
            return
        ns = stamp_ns(message.header.stamp)
        self._worker.post(lambda: self._engine.add_odometry(ns, pose))
