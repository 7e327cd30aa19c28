#!/usr/bin/env bash
# The node of the robot image; arguments go to its launch file.
set -eo pipefail
# shellcheck disable=SC1090
source "/opt/ros/$ROS_DISTRO/setup.bash"
# shellcheck disable=SC1091
source /ws/venv/bin/activate
# shellcheck disable=SC1091
source /ws/install/setup.bash
exec ros2 launch flow3r_ros robot.launch.py "$@"
