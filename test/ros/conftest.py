"""Every DDS test stays on this machine; without ROS 2 the whole folder is left out."""

from __future__ import annotations

import os
from importlib.util import find_spec

os.environ["ROS_AUTOMATIC_DISCOVERY_RANGE"] = "LOCALHOST"

if find_spec("rclpy"):
    from flow3r_ros.ros.dds_profile import use_large_messages

    use_large_messages()

collect_ignore_glob = [] if find_spec("rclpy") else ["test_*.py"]
