"""The bond that Nav2's lifecycle manager waits for when it activates a node, and breaks with when
the node dies: a heartbeat on `bond` under the node's name while it is active.

Only where the messages of package `bond` are installed, which come with Nav2. Protocol: the state
machine of bond_core; a manager's side forms at the first `active` message of another instance and
breaks after `bond_timeout` (4 s by default) without one.
"""

from __future__ import annotations

import uuid
from typing import Any

from rclpy.node import Node

from flow3r_ros.ros.messages import class_of
from flow3r_ros.ros.reporting import STEADY

PERIOD_S = 0.5
TIMEOUT_S = 4.0
"""said in the message for whoever debugs; the manager goes by its own"""


class Bond:
    """Our side of the bond; does nothing where the messages are not installed."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._timer: Any = None
        self._publisher: Any = None
        self._instance = ""
        try:
            self._status: Any = class_of("bond/msg/Status")
        except ImportError:
            self._status = None

    def form(self) -> None:
        """The node is active: begin to beat, as a new instance."""
        if self._status is None:
            return
        self._instance = str(uuid.uuid4())
        self._publisher = self._node.create_publisher(self._status, "bond", 1)
        self._timer = self._node.create_timer(PERIOD_S, self._beat, clock=STEADY)
        self._beat()

    def end(self) -> None:
        """The node is no longer active, and says so."""
        if self._timer is None:
            return
        self._node.destroy_timer(self._timer)
        self._beat(active=False)
        self._node.destroy_publisher(self._publisher)
        self._timer = self._publisher = None

    def _beat(self, active: bool = True) -> None:
        message = self._status(
            id=self._node.get_name(),
            instance_id=self._instance,
            active=active,
            heartbeat_timeout=TIMEOUT_S,
            heartbeat_period=PERIOD_S,
        )
        message.header.stamp = self._node.get_clock().now().to_msg()
        self._publisher.publish(message)
