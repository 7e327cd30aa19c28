"""An example of a node that uses ours: where is the nearest obstacle?

Listens to the cloud, depth image and odometry of the node and to tf, and prints about once a second
how far the nearest point is that the robot would run into, in `base_link`:

    ros2 run flow3r_ros example_consumer --ros-args -p base_frame:=base_link

`sensor_msgs_py.point_cloud2` reads the cloud and `tf_transformations` the rotations; both come with
ROS 2 from apt. Distances are in the unit of the odometry, metres where `~/status` calls its scale
metric. A robot that plans a path uses tf2_ros and interpolates between transforms; this example
takes the latest ones.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import Any

import numpy as np
import rclpy
from nav_msgs.msg import Odometry
from rclpy.executors import ExternalShutdownException
from rclpy.node import Node
from sensor_msgs.msg import Image, PointCloud2
from tf2_msgs.msg import TFMessage

from flow3r_ros.ros import qos
from flow3r_ros.ros.once import Once
from flow3r_ros.types import Float64
from flow3r_ros.wire.transforms import StaticTransforms

PERIOD_S = 1.0
"""time between two lines"""
CURE = (
    "sudo apt install ros-$ROS_DISTRO-sensor-msgs-py ros-$ROS_DISTRO-tf-transformations "
    "(neither is on PyPI)"
)


class ExampleConsumer(Node):  # type: ignore[misc]
    """Prints the distance to the nearest obstacle.

    Parameters: `base_frame`, and `min_height` and `max_height` above its origin between which a
    point is an obstacle (below is floor, above the robot passes under). The topics
    `flow3r/points`, `flow3r/depth/image` and `flow3r/odometry` can be remapped.
    """

    def __init__(self) -> None:
        super().__init__("example_consumer")
        self._base = str(self.declare_parameter("base_frame", "base_link").value)
        self._heights = tuple(
            float(self.declare_parameter(name, value).value)
            for name, value in (("min_height", 0.1), ("max_height", 2.0))
        )
        self._say = Once(self.get_logger())
        self._mounted = StaticTransforms()
        self._moving = StaticTransforms()
        self._cloud: Any = None
        self._depth: Any = None
        self._odometry: Any = None
        self.create_subscription(TFMessage, "/tf_static", self._on_static, qos.STATIC)
        self.create_subscription(TFMessage, "/tf", self._moving.add, qos.TF)
        self.create_subscription(PointCloud2, "flow3r/points", self._on_cloud, 5)
        self.create_subscription(Image, "flow3r/depth/image", self._on_depth, 5)
        self.create_subscription(Odometry, "flow3r/odometry", self._on_odometry, 5)
        self.create_timer(PERIOD_S, self._report)

    def _on_static(self, message: Any) -> None:
        self._mounted.add(message)
        self._moving.add(message)

    def _on_cloud(self, message: Any) -> None:
        self._cloud = message

    def _on_depth(self, message: Any) -> None:
        self._depth = message

    def _on_odometry(self, message: Any) -> None:
        self._odometry = message

    def _report(self) -> None:
        if self._cloud is None:
            topic = self.resolve_topic_name("flow3r/points")
            self._say("cloud", f"no cloud on {topic} yet: is the node running and not LOST?")
            return
        parts = [self._nearest(self._cloud)]
        if self._depth is not None:
            parts.append(f"straight ahead {_text(depth_ahead(self._depth))}")
        if self._odometry is not None:
            pose = self._odometry.pose.pose
            parts.append(
                f"{self._odometry.child_frame_id} at ({pose.position.x:.2f}, "
                f"{pose.position.y:.2f}), heading {heading_deg(pose.orientation):.0f} deg"
            )
        self.get_logger().info("; ".join(parts))

    def _nearest(self, cloud: Any) -> str:
        from sensor_msgs_py.point_cloud2 import read_points_numpy

        points = read_points_numpy(cloud, field_names=["x", "y", "z"], skip_nans=True)
        frame = cloud.header.frame_id
        T_base_cloud = self._mounted.lookup(self._base, frame)
        if T_base_cloud is None:  # a cloud in odom, or a camera on an arm
            T_base_cloud = self._moving.lookup(self._base, frame)
        if T_base_cloud is None:
            self._say(
                f"tf {frame}",
                f"no transform {self._base} <- {frame} on /tf or /tf_static: distances are from "
                f"the origin of {frame}; publish the camera's extrinsics, or set base_frame",
            )
            return f"nearest point {_text(_smallest(np.linalg.norm(points, axis=1)))} from {frame}"
        distance, bearing = nearest_obstacle(points, T_base_cloud, *self._heights)
        if not math.isfinite(distance):
            return f"no obstacle seen from {self._base}"
        side = "left" if bearing > 0 else "right"
        return (
            f"nearest obstacle {_text(distance)} from {self._base}, "
            f"{abs(bearing):.0f} deg to the {side}"
        )


def nearest_obstacle(
    points: Any, T_base_cloud: Float64, min_height: float, max_height: float
) -> tuple[float, float]:
    """Horizontal distance and bearing (degrees, left positive) in the base frame (REP-103) of the
    nearest of `points` `[n, 3]` whose height lies within the limits; inf and 0 without one."""
    moved = np.asarray(points, np.float64) @ T_base_cloud[:3, :3].T + T_base_cloud[:3, 3]
    moved = moved[(moved[:, 2] >= min_height) & (moved[:, 2] <= max_height)]
    if not len(moved):
        return math.inf, 0.0
    distances = np.hypot(moved[:, 0], moved[:, 1])
    nearest = moved[int(np.argmin(distances))]
    return float(distances.min()), math.degrees(math.atan2(nearest[1], nearest[0]))


def depth_ahead(image: Any) -> float:
    """Median depth of the middle ninth of a 32FC1 depth image (REP-118: NaN is no depth)."""
    depth = np.frombuffer(image.data, np.float32).reshape(image.height, image.width)
    height, width = depth.shape
    middle = depth[height // 3 : height - height // 3, width // 3 : width - width // 3]
    known = middle[np.isfinite(middle)]
    return float(np.median(known)) if len(known) else math.nan


def heading_deg(orientation: Any) -> float:
    """Yaw of a `geometry_msgs/Quaternion`, degrees."""
    from tf_transformations import euler_from_quaternion

    xyzw = [orientation.x, orientation.y, orientation.z, orientation.w]
    return math.degrees(euler_from_quaternion(xyzw)[2])


def _smallest(values: Any) -> float:
    return float(values.min()) if len(values) else math.nan


def _text(distance: float) -> str:
    return f"{distance:.2f}" if math.isfinite(distance) else "unknown"


def main(arguments: Sequence[str] | None = None) -> int:
    """Print until Ctrl-C; 1 with one line where the two packages are missing."""
    try:
        import_module("sensor_msgs_py.point_cloud2")
        import_module("tf_transformations")
    except ImportError as error:
        sys.stderr.write(f"example_consumer: {error}; {CURE}\n")
        return 1
    rclpy.init(args=sys.argv if arguments is None else list(arguments))
    node = ExampleConsumer()
    try:
        rclpy.spin(node)
    except (KeyboardInterrupt, ExternalShutdownException):
        return 0
    finally:
        node.destroy_node()
        rclpy.try_shutdown()
    return 0


if __name__ == "__main__":
    sys.exit(main())
