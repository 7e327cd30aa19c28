r"""A bag through the live node, recorded on request.

    ros2 launch flow3r_ros replay.launch.py bag:=/data/drive image:=/camera/image_raw
        camera_info:=/camera/camera_info \ record:=/data/drive_flow3r

`flow3r replay` does the same without DDS, drops nothing, and gives the same answer every time.
"""

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    TimerAction,
)
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution, PythonExpression
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "bag": (None, "bag to play"),
    "rate": ("1.0", "speed of the playback"),
    "record": ("", "bag to write the node's outputs to; empty: none"),
    "start_delay": ("10.0", "seconds until the bag starts, for the model to load"),
    "namespace": ("", "namespace of the node and its topics"),
    "image": (
        "image",
        "image topic of the bag; for compressed images without the /compressed suffix",
    ),
    "image_transport": ("raw", "raw or compressed"),
    "camera_info": ("camera_info", "CameraInfo topic of the bag"),
    "base_frame": ("", "child of the tf edge, e.g. base_link; empty: the camera itself"),
    "model": ("flow3r_nano", "model: a name under models/ or a path"),
    "device": ("auto", "auto, cpu, cuda or cuda:N"),
    "rviz": ("false", "open RViz with the shipped view"),
}
RECORDED = "(.*/flow3r/.*)|/tf|/tf_static|/diagnostics"
PASSED_ON = (
    "namespace",
    "image",
    "image_transport",
    "camera_info",
    "base_frame",
    "model",
    "device",
    "rviz",
)


def generate_launch_description() -> LaunchDescription:
    """The robot's launch file on simulated time, `ros2 bag play --clock`, and `ros2 bag record` on
    request."""
    arguments = [
        DeclareLaunchArgument(
            name, description=description, **({} if default is None else {"default_value": default})
        )
        for name, (default, description) in ARGUMENTS.items()
    ]
    robot = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(
            PathJoinSubstitution([FindPackageShare("flow3r_ros"), "launch", "robot.launch.py"])
        ),
        launch_arguments=[
            ("use_sim_time", "true"),
            *((name, LaunchConfiguration(name)) for name in PASSED_ON),
        ],
    )
    play = ExecuteProcess(
        cmd=[
            "ros2",
            "bag",
            "play",
            LaunchConfiguration("bag"),
            "--clock",
            "200",
            "--rate",
            LaunchConfiguration("rate"),
        ],
        output="screen",
    )
    record = ExecuteProcess(
        cmd=[
            "ros2",
            "bag",
            "record",
            "--storage",
            "mcap",
            "--output",
            LaunchConfiguration("record"),
            "--regex",
            RECORDED,
        ],
        condition=IfCondition(PythonExpression(["'", LaunchConfiguration("record"), "' != ''"])),
        output="screen",
    )
    return LaunchDescription(
        [
            *arguments,
            robot,
            record,
            TimerAction(period=LaunchConfiguration("start_delay"), actions=[play]),
        ]
    )
