"""What the launch files in `launch/` share: the node with its arguments, RViz, and what happens
when one of them ends.

Runs in the Python of `ros2 launch`, which may be the system's without our virtual environment: so
nothing of ours is imported here but what the standard library carries.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ament_index_python.packages import PackageNotFoundError, get_package_prefix
from launch import LaunchContext
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.conditions import IfCondition
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import LifecycleNode, Node
from launch_ros.parameter_descriptions import ParameterValue
from launch_ros.substitutions import FindPackageShare

SHARE = FindPackageShare("flow3r_ros")
AS_FILE = "; as in params_file when not given"
PARAMETERS = {
    "image_transport": ("node.image_transport", "raw or compressed"),
    "odom_frame": ("node.odom_frame", "parent of the tf edge"),
    "map_frame": ("node.map_frame", "frame above odom"),
    "base_frame": ("node.base_frame", "child of the tf edge, e.g. base_link"),
    "model": ("model.name", "model: a name under models/ or a path"),
    "device": ("model.device", "auto, cpu, cuda or cuda:N"),
    "use_sim_time": ("use_sim_time", "true or false: follow /clock"),
}
"""argument -> the parameter that it sets where it is given, and what it means"""
TOPICS = {
    "image": "image topic to remap to; for compressed images without the /compressed suffix",
    "camera_info": "CameraInfo topic to remap to",
    "odom": "wheel odometry topic to remap to, used with scale.source odometry",
    "imu": "sensor_msgs/Imu topic to remap to",
    "mask": "topic to remap to of mono8 images whose nonzero pixels are ignored",
    "tf": "topic of the tf edges; tf (relative) keeps those of a namespace apart",
    "tf_static": "topic of the static transforms",
}
"""arguments that remap; tf and tf_static are absolute by default"""
PROCESS = {
    "namespace": ("", "namespace of the node and its topics"),
    "name": ("flow3r", "name of the node"),
    "log_level": ("info", "debug, info, warn, error or fatal, of the node"),
    "respawn": ("false", "start the node again, 2 s after it died"),
    "on_exit": ("shutdown", "shutdown: everything ends with the node; nothing: the rest goes on"),
}
RVIZ_TOPICS = ("odometry", "path", "depth/image", "confidence", "moving_mask", "points", "map")


def declare(arguments: dict[str, tuple[str, str]]) -> list[Any]:
    """Launch arguments of names -> (default, description)."""
    return [
        DeclareLaunchArgument(name, default_value=default, description=description)
        for name, (default, description) in arguments.items()
    ]


def node_arguments(leave_out: Iterable[str] = ()) -> list[Any]:
    """The launch arguments of one node, but for those in `leave_out`."""
    known = {
        **PROCESS,
        **{name: (f"/{name}" if "tf" in name else name, what) for name, what in TOPICS.items()},
        **{name: ("", what + AS_FILE) for name, (_, what) in PARAMETERS.items()},
    }
    shipped = DeclareLaunchArgument(
        "params_file",
        default_value=PathJoinSubstitution([SHARE, "config", "node.yaml"]),
        description="YAML of parameters (docs/parameters.md); the shipped defaults when not given",
    )
    return [shipped, *declare({n: v for n, v in known.items() if n not in leave_out})]


def node(
    context: LaunchContext, parameters: dict[str, Any] | None = None, **fixed: str
) -> LifecycleNode:
    """The node as the arguments say; `fixed` overrides arguments, `parameters` sets more of them.

    Only parameters that were given override those of `params_file`. The node takes the Fast DDS
    profile for large messages by itself, where none is set, so nobody else gets it.
    """
    names = (*PROCESS, *TOPICS, *PARAMETERS, "params_file")
    values = fixed | {
        name: LaunchConfiguration(name).perform(context) for name in names if name not in fixed
    }
    given: dict[str, Any] = {
        parameter: ParameterValue(values[name], value_type=str)
        for name, (parameter, _) in PARAMETERS.items()
        if values[name]
    }
    if values["use_sim_time"]:
        given["use_sim_time"] = values["use_sim_time"].lower() == "true"
    given |= parameters or {}
    prefix = f"/{values['namespace'].strip('/')}".rstrip("/")
    title = f"{prefix}/{values['name']}"
    logger = title.strip("/").replace("/", ".")
    return LifecycleNode(
        package="flow3r_ros",
        executable="flow3r_node",
        namespace=values["namespace"],
        name=values["name"],
        output="screen",
        parameters=[values["params_file"], *([given] if given else [])],
        remappings=[
            *((name, values[name]) for name in TOPICS if "tf" not in name),
            ("image/compressed", f"{values['image']}/compressed"),
            ("/tf", values["tf"]),
            ("/tf_static", values["tf_static"]),
        ],
        ros_arguments=["--log-level", f"{logger}:={values['log_level']}"],
        respawn=values["respawn"].lower() == "true",
        respawn_delay=2.0,
        on_exit=None if values["respawn"].lower() == "true" else on_exit(title, values["on_exit"]),
    )


def on_exit(what: str, policy: str) -> Callable[[Any, LaunchContext], list[Any] | None]:
    """What to do when a process ends by itself: with the policy `shutdown` the launch ends too, and
    `ros2 launch` with exit code 1 where the process failed."""

    def ended(event: Any, context: LaunchContext) -> list[Any] | None:
        if context.is_shutdown or policy != "shutdown":
            return None
        if event.returncode == 0:
            return [Shutdown(reason=f"{what} has ended")]
        return [failure(f"{what} died with exit code {event.returncode}")]

    return ended


def failure(text: str) -> Any:
    """An action that ends the launch with exit code 1 and one line."""

    def fail(context: LaunchContext) -> None:
        raise RuntimeError(text)

    return OpaqueFunction(function=fail)


def needs(package: str, wanted_by: str) -> Any:
    """An action, to stand before anything is started: fails where a package is not installed.

    `wanted_by` is an argument of the launch file whose value `true` wants it; empty: always.
    """

    def look(context: LaunchContext) -> None:
        if wanted_by and LaunchConfiguration(wanted_by).perform(context).lower() != "true":
            return
        try:
            get_package_prefix(package)
        except PackageNotFoundError:
            why = f"{wanted_by}:=true needs {package}" if wanted_by else f"{package} is needed"
            apt = package.replace("_", "-")
            raise RuntimeError(
                f"{why}, which is not installed: sudo apt install ros-$ROS_DISTRO-{apt}"
            ) from None

    return OpaqueFunction(function=look)


def rviz(condition: str = "", policy: str = "nothing", use_sim_time: str = "") -> Any:
    """RViz with the shipped view on the node of the arguments `namespace` and `name`; if the
    argument `condition` is true. `use_sim_time` is an argument as well, unless given here."""
    namespace, name = LaunchConfiguration("namespace"), LaunchConfiguration("name")

    def start(context: LaunchContext) -> list[Any]:
        prefix = f"/{namespace.perform(context).strip('/')}".rstrip("/")
        sim = use_sim_time or LaunchConfiguration("use_sim_time").perform(context)
        return [
            Node(
                package="rviz2",
                executable="rviz2",
                arguments=["-d", PathJoinSubstitution([SHARE, "config", "flow3r.rviz"])],
                parameters=[{"use_sim_time": sim.lower() == "true"}],
                remappings=[
                    (f"/flow3r/{topic}", f"{prefix}/{name.perform(context)}/{topic}")
                    for topic in RVIZ_TOPICS
                ],
                output="screen",
                on_exit=on_exit("rviz2", policy),
            )
        ]

    return OpaqueFunction(
        function=start, condition=IfCondition(LaunchConfiguration(condition)) if condition else None
    )
