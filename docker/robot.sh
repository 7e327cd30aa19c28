#!/usr/bin/env bash
# The workspace of docs/robot.md on a ROS 2 image: rosdep, a virtual environment that sees the system's packages, colcon.
#
#   docker/robot.sh [WORKSPACE]    the workspace holds src/flow3r_ros; default /ws
set -euo pipefail
cd "${1:-/ws}"
set +u
# shellcheck disable=SC1090
source "/opt/ros/$ROS_DISTRO/setup.bash"
set -u

apt-get update -qq
apt-get install -y -qq --no-install-recommends python3-venv
rosdep update --rosdistro "$ROS_DISTRO"
rosdep install --from-paths src --ignore-src -y --skip-keys "python3-rosbags-pip python3-huggingface-hub-pip"
rm -rf /var/lib/apt/lists/*

python3 -m venv --system-site-packages venv
venv/bin/pip install --no-cache-dir -c src/flow3r_ros/constraints.txt safetensors pydantic rosbags huggingface_hub
# shellcheck disable=SC1091
source venv/bin/activate
colcon build --packages-select flow3r_ros
