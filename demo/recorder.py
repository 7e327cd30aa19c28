"""Records every output of the node into an mcap bag as the bytes that came over DDS, and notes what
the summary needs."""

from __future__ import annotations

import threading
import time
from functools import partial

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile

from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.offline.bag_recorder import bag_topic
from flow3r_ros.ros.messages import class_of
from flow3r_ros.wire.outputs import TOPICS


class Recorder:
    """Raw subscriptions to every topic of the contract, written as they come."""

    def __init__(self, node: Node, bag: BagWriter) -> None:
        self._bag = bag
        self._changed = threading.Condition()
        self.counts = dict.fromkeys(TOPICS, 0)
        self._subscriptions = []
        for topic, type_name in TOPICS.items():
            latched = topic == "~/map"
            bag.add(bag_topic(topic), type_name, latched)
            durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
            qos = QoSProfile(depth=50, durability=durability)
            write = partial(self._write, topic)
            self._subscriptions.append(
                node.create_subscription(
                    class_of(type_name), bag_topic(topic), write, qos, raw=True
                )
            )

    def _write(self, topic: str, data: bytes) -> None:
        with self._changed:
            self._bag.write(bag_topic(topic), time.time_ns(), data)
            self.counts[topic] += 1
            if topic != "~/map":
                self._changed.notify_all()

    def wait_for_quiet(self, seconds: float) -> None:
        """Until nothing but the map has come for so long."""
        with self._changed:
            while self._changed.wait(seconds):
                pass

    def matched(self, node: Node) -> bool:
        """Whether the node publishes every topic by now."""
        return all(node.count_publishers(bag_topic(topic)) for topic in TOPICS)

    def close(self, node: Node) -> None:
        """Take no more messages."""
        for subscription in self._subscriptions:
            node.destroy_subscription(subscription)
