"""A bag through the live node, recorded on request.

ros2 launch flow3r_ros replay.launch.py bag:=/data/drive image:=/camera/image_raw
camera_info:=/camera/camera_info record:=/data/drive_flow3r

Starts the bag when the node is active, and ends after it. `flow3r replay` does the same without
DDS, drops nothing, and gives the same answer every time.
"""

from launch import LaunchContext, LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    OpaqueFunction,
    RegisterEventHandler,
    Shutdown,
    TimerAction,
)
from launch.event_handlers import OnProcessExit
from launch.substitutions import LaunchConfiguration
from launch_ros.event_handlers import OnStateTransition

from flow3r_ros.ros import launching

ARGUMENTS = {
    "rate": ("1.0", "speed of the playback"),
    "record": ("", "bag to write the node's outputs to; empty: none"),
    "linger": ("3.0", "seconds after the bag's end, for the last results"),
    "rviz": ("false", "open RViz with the shipped view"),
}
DECIDED = {"use_sim_time": "true", "respawn": "false"}
"""arguments of the node that a replay decides: one that died has lost its part of the bag"""


def generate_launch_description() -> LaunchDescription:
    """The node on simulated time, `ros2 bag play --clock` once it is active, `ros2 bag record` on
    request; ends after the bag."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("bag", description="bag to play"),
            *launching.node_arguments(leave_out=DECIDED),
            *launching.declare(ARGUMENTS),
            launching.needs("rviz2", wanted_by="rviz"),
            OpaqueFunction(function=_start),
            launching.rviz(condition="rviz", use_sim_time="true"),
        ]
    )


def _start(context: LaunchContext) -> list:
    values = {
        name: LaunchConfiguration(name).perform(context)
        for name in ("bag", "rate", "record", "linger", "namespace", "name")
    }
    node = launching.node(context, **DECIDED)
    command = ["ros2", "bag", "play", values["bag"], "--clock", "200", "--rate", values["rate"]]
    play = ExecuteProcess(cmd=command, output="screen", name="bag_play")

    def after_play(event, context: LaunchContext) -> list:
        if event.returncode != 0:
            return [launching.failure(f"ros2 bag play ended with exit code {event.returncode}")]
        ended = Shutdown(reason="the bag has ended")
        return [TimerAction(period=float(values["linger"]), actions=[ended])]

    return [
        *(_record(values) if values["record"] else []),
        RegisterEventHandler(OnProcessExit(target_action=play, on_exit=after_play)),
        RegisterEventHandler(
            OnStateTransition(
                target_lifecycle_node=node,
                goal_state="active",
                entities=[play],
                handle_once=True,
            )
        ),
        node,
    ]


def _record(values: dict[str, str]) -> list:
    """`ros2 bag record` of what the node of this namespace and name publishes, on its time."""
    prefix = f"/{values['namespace'].strip('/')}".rstrip("/")
    topics = f"({prefix}/{values['name']}/.*)|({prefix})?/tf|({prefix})?/tf_static|/diagnostics"
    command = ["ros2", "bag", "record", "--storage", "mcap", "--use-sim-time"]
    command += ["--output", values["record"], "--regex", topics]
    return [ExecuteProcess(cmd=command, output="screen", name="bag_record")]
