"""The bytes of a message's `uint8[]`: `array.array` from rclpy, an array from rosbags, and what
ROS 2 Lyrical gives for memory of a vendor's (a camera driver that publishes from the GPU), which is
a `rosidl_buffer.Buffer` with no buffer protocol but `to_bytes`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from flow3r_ros.types import UInt8


def payload(data: Any) -> UInt8:
    """Bytes `[N]`, a view where the memory can be viewed."""
    try:
        return np.frombuffer(data, dtype=np.uint8)
    except TypeError:
        return np.frombuffer(data.to_bytes(), dtype=np.uint8)
