"""RViz on the outputs of a node that runs elsewhere.

ros2 launch flow3r_ros view.launch.py namespace:=robot1
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node
from launch_ros.substitutions import FindPackageShare

OUTPUTS = ("odometry", "path", "depth/image", "confidence", "moving_mask", "points", "map")


def generate_launch_description() -> LaunchDescription:
    """RViz with the shipped view, remapped to the node's namespace and name."""
    arguments = [
        DeclareLaunchArgument("namespace", default_value="", description="namespace of the node"),
        DeclareLaunchArgument("name", default_value="flow3r", description="name of the node"),
        DeclareLaunchArgument("use_sim_time", default_value="false", description="follow /clock"),
        DeclareLaunchArgument(
            "config",
            default_value=PathJoinSubstitution(
                [FindPackageShare("flow3r_ros"), "config", "flow3r.rviz"]
            ),
            description="RViz configuration",
        ),
    ]
    remappings = [
        (
            f"/flow3r/{output}",
            [LaunchConfiguration("namespace"), "/", LaunchConfiguration("name"), f"/{output}"],
        )
        for output in OUTPUTS
    ]
    rviz = Node(
        package="rviz2",
        executable="rviz2",
        arguments=["-d", LaunchConfiguration("config")],
        parameters=[{"use_sim_time": LaunchConfiguration("use_sim_time")}],
        remappings=remappings,
        output="screen",
    )
    return LaunchDescription([*arguments, rviz])
