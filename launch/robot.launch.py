"""The node on a robot.

ros2 launch flow3r_ros robot.launch.py image:=/camera/image_raw camera_info:=/camera/camera_info
base_frame:=base_link rviz:=true
"""

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, IncludeLaunchDescription, SetEnvironmentVariable
from launch.conditions import IfCondition
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

ARGUMENTS = {
    "namespace": ("", "namespace of the node and its topics"),
    "name": ("flow3r", "name of the node"),
    "params_file": (
        None,
        "YAML of parameters (docs/parameters.md); the shipped defaults when not given",
    ),
    "image": (
        "image",
        "image topic to remap to; for compressed images without the /compressed suffix",
    ),
    "image_transport": ("raw", "raw or compressed"),
    "camera_info": ("camera_info", "CameraInfo topic to remap to"),
    "odom": ("odom", "wheel odometry topic to remap to, used with scale.source odometry"),
    "base_frame": ("", "child of the tf edge, e.g. base_link; empty: the camera itself"),
    "model": ("flow3r_nano", "model: a name under models/ or a path"),
    "device": ("auto", "auto, cpu, cuda or cuda:N"),
    "use_sim_time": ("false", "follow /clock"),
    "rviz": ("false", "open RViz with the shipped view"),
}


def generate_launch_description() -> LaunchDescription:
    """Arguments, the Fast DDS profile for large messages, the node, and RViz on request."""
    share = FindPackageShare("flow3r_ros")
    shipped = PathJoinSubstitution([share, "config", "node.yaml"])
    profile = PathJoinSubstitution([share, "config", "fastdds_large_messages.xml"])
    arguments = [
        DeclareLaunchArgument(
            name, default_value=shipped if default is None else default, description=description
        )
        for name, (default, description) in ARGUMENTS.items()
    ]
    node = LifecycleNode(
        package="flow3r_ros",
        executable="flow3r_node",
        namespace=LaunchConfiguration("namespace"),
        name=LaunchConfiguration("name"),
        output="screen",
        parameters=[
            LaunchConfiguration("params_file"),
            {
                "node.image_transport": LaunchConfiguration("image_transport"),
                "node.base_frame": ParameterValue(
                    LaunchConfiguration("base_frame"), value_type=str
                ),
                "model.name": ParameterValue(LaunchConfiguration("model"), value_type=str),
                "model.device": LaunchConfiguration("device"),
                "use_sim_time": ParameterValue(
                    LaunchConfiguration("use_sim_time"), value_type=bool
                ),
            },
        ],
        remappings=[
            ("image", LaunchConfiguration("image")),
            ("image/compressed", [LaunchConfiguration("image"), "/compressed"]),
            ("camera_info", LaunchConfiguration("camera_info")),
            ("odom", LaunchConfiguration("odom")),
        ],
    )
    rviz = IncludeLaunchDescription(
        PythonLaunchDescriptionSource(PathJoinSubstitution([share, "launch", "view.launch.py"])),
        launch_arguments=[
            (name, LaunchConfiguration(name)) for name in ("namespace", "name", "use_sim_time")
        ],
        condition=IfCondition(LaunchConfiguration("rviz")),
    )
    environment = [
        SetEnvironmentVariable("FASTRTPS_DEFAULT_PROFILES_FILE", profile),
        SetEnvironmentVariable("FASTDDS_DEFAULT_PROFILES_FILE", profile),
    ]
    return LaunchDescription([*arguments, *environment, node, rviz])
