"""The clock set back or replaced: a bag that loops, a simulation that starts again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from rclpy.clock import ClockChange, JumpThreshold, TimeJump
from rclpy.duration import Duration
from rclpy.node import Node


def watch_jumps_back(node: Node, jumped: Callable[[str], None]) -> Any:
    """Call `jumped(text)` whenever the node's clock jumps back; ends with `unregister()` of what is
    returned."""

    def look(jump: TimeJump) -> None:
        # rclpy hands over the enumeration of its C++ side, not the one of its type hints: only the
        # numbers are equal
        same_clock = int(jump.clock_change) == int(ClockChange.ROS_TIME_NO_CHANGE)
        if same_clock and jump.delta.nanoseconds < 0:
            jumped(f"the clock jumped back by {-jump.delta.nanoseconds / 1e9:.2f} s")

    threshold = JumpThreshold(
        min_forward=None, min_backward=Duration(nanoseconds=-1), on_clock_change=True
    )
    return node.get_clock().create_jump_callback(threshold, post_callback=look)
