"""The node, a filter and a costmap: what stands between a camera with wheels and Nav2.

ros2 launch flow3r_ros navigation.launch.py image:=/camera/image_raw
camera_info:=/camera/camera_info odom:=/wheel/odom

The node takes the scale from the wheels and publishes no tf; robot_localization (config/ekf.yaml)
fuses its twist and publishes odom -> base_link; nav2_costmap_2d (config/nav2_costmap.yaml) marks
~/obstacles. With a Nav2 of your own that has its costmaps already: `costmap:=false`, and copy the
recipe into its parameters.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import OpaqueFunction
from launch.substitutions import LaunchConfiguration, PathJoinSubstitution
from launch_ros.actions import Node

from flow3r_ros.ros import launching

ARGUMENTS = {
    "base_frame": ("base_link", "frame of the robot, as in the two recipes"),
    "scale": ("odometry", "scale.source: what makes metres; odometry, camera_height or fixed"),
    "ekf": ("true", "start robot_localization's ekf_node"),
    "costmap": ("true", "start nav2_costmap_2d and its lifecycle manager"),
    "sensor_frame": ("camera_optical_frame", "frame of the camera, where the costmap's rays begin"),
}
NEEDED = {
    "robot_localization": "ekf",
    "nav2_costmap_2d": "costmap",
    "nav2_lifecycle_manager": "costmap",
}
"""package -> the argument that wants it"""


def generate_launch_description() -> LaunchDescription:
    """Arguments, a look at what is installed, and the nodes."""
    return LaunchDescription(
        [
            *launching.node_arguments(leave_out=ARGUMENTS),
            *launching.declare(ARGUMENTS),
            *(launching.needs(package, wanted_by=name) for package, name in NEEDED.items()),
            OpaqueFunction(function=_nodes),
        ]
    )


def _nodes(context: LaunchContext) -> list:
    names = (*ARGUMENTS, "namespace", "name", "use_sim_time", "odom_frame", "map_frame")
    values = {name: LaunchConfiguration(name).perform(context) for name in names}
    prefix = f"/{values['namespace'].strip('/')}".rstrip("/")
    ours = f"{prefix}/{values['name']}"
    time = {"use_sim_time": values["use_sim_time"].lower() == "true"}
    odom, base = values["odom_frame"] or "odom", values["base_frame"]
    nodes = [
        launching.node(
            context, {"node.publish_tf": not _is(values["ekf"]), "scale.source": values["scale"]}
        )
    ]
    if _is(values["ekf"]):
        frames = {"odom_frame": odom, "world_frame": odom, "base_link_frame": base}
        frames["map_frame"] = values["map_frame"] or "map"
        nodes.append(
            Node(
                package="robot_localization",
                executable="ekf_node",
                name="ekf_filter_node",
                parameters=[_recipe("ekf.yaml"), {"odom0": f"{ours}/odometry", **frames, **time}],
                output="screen",
                on_exit=launching.on_exit("ekf_node", "shutdown"),
            )
        )
    if _is(values["costmap"]):
        frames = {"global_frame": odom, "robot_base_frame": base}
        source = "obstacles.flow3r"
        seen = {
            f"{source}.topic": f"{ours}/obstacles",
            f"{source}.sensor_frame": values["sensor_frame"],
        }
        nodes += [
            Node(
                package="nav2_costmap_2d",
                executable="nav2_costmap_2d",
                namespace="costmap",  # both as Humble's program names itself
                name="costmap",
                parameters=[_recipe("nav2_costmap.yaml"), {**frames, **seen, **time}],
                output="screen",
                on_exit=launching.on_exit("nav2_costmap_2d", "shutdown"),
            ),
            Node(
                package="nav2_lifecycle_manager",
                executable="lifecycle_manager",
                name="lifecycle_manager_costmap",
                parameters=[_recipe("nav2_costmap.yaml"), time],
                output="screen",
                on_exit=launching.on_exit("lifecycle_manager", "shutdown"),
            ),
        ]
    return nodes


def _is(value: str) -> bool:
    return value.lower() == "true"


def _recipe(name: str) -> PathJoinSubstitution:
    return PathJoinSubstitution([launching.SHARE, "config", name])
