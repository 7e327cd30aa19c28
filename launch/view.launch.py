"""RViz on the outputs of a node that runs elsewhere.

ros2 launch flow3r_ros view.launch.py namespace:=robot1
"""

from launch import LaunchDescription

from flow3r_ros.ros import launching

ARGUMENTS = {
    "namespace": ("", "namespace of the node"),
    "name": ("flow3r", "name of the node"),
    "use_sim_time": ("false", "follow /clock"),
}


def generate_launch_description() -> LaunchDescription:
    """RViz with the shipped view, remapped to the node's namespace and name."""
    return LaunchDescription(
        [
            *launching.declare(ARGUMENTS),
            launching.needs("rviz2", wanted_by=""),
            launching.rviz(policy="shutdown"),
        ]
    )
