"""The node on a robot.

ros2 launch flow3r_ros robot.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
base_frame:=base_link rviz:=true
"""

from launch import LaunchDescription
from launch.actions import OpaqueFunction

from flow3r_ros.ros import launching


def generate_launch_description() -> LaunchDescription:
    """Arguments, the node, and RViz on request."""
    return LaunchDescription(
        [
            *launching.node_arguments(),
            *launching.declare({"rviz": ("false", "open RViz with the shipped view")}),
            launching.needs("rviz2", wanted_by="rviz"),
            OpaqueFunction(function=lambda context: [launching.node(context)]),
            launching.rviz(condition="rviz"),
        ]
    )
