"""Subscriptions that follow the reliability of the publisher, hand over without losing a message,
and say a mismatch once."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from rclpy.callback_groups import CallbackGroup
from rclpy.event_handler import SubscriptionEventCallbacks
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.subscription import Subscription

from flow3r_ros.ros import qos
from flow3r_ros.ros.messages import class_of
from flow3r_ros.wire.frames import Say


def image_input(node: Node, transport: str) -> tuple[str, str]:
    """(topic, type) of the images by `node.image_transport`.

    A transport lies below the topic that `image` is remapped to, as image_transport has it:
    `image:=/camera/image_raw` with `compressed` is `/camera/image_raw/compressed`. A remapping of
    `image/compressed` itself holds where there is one.
    """
    if transport == "raw":
        return "image", "sensor_msgs/msg/Image"
    direct, plain = (
        node.resolve_topic_name(f"image/{transport}"),
        node.resolve_topic_name(f"image/{transport}", only_expand=True),
    )
    below = f"{node.resolve_topic_name('image')}/{transport}"
    return direct if direct != plain else below, "sensor_msgs/msg/CompressedImage"


class Input:
    """A subscription to messages with a header, in the reliability that the publishers offer.

    Args:
        topic: relative name.
        fixed: `auto` follows the publishers, else `reliable` or `best_effort`.
        receive: called as `receive(message, time.monotonic() at reception)`.
        lost: called with the number of messages that the transport lost before they reached us.
        latched: whether to ask for what was published before, where the publishers keep it.
    """

    def __init__(
        self,
        node: Node,
        topic: str,
        type_name: str,
        depth: int,
        fixed: str,
        group: CallbackGroup,
        receive: Callable[[Any, float], None],
        lost: Callable[[int], None],
        say: Say,
        latched: bool = False,
    ) -> None:
        self._node, self._topic, self._type_name, self._depth, self._fixed = (
            node,
            topic,
            type_name,
            depth,
            fixed,
        )
        self._group, self._receive, self._lost, self._say = group, receive, lost, say
        self._latched = latched
        self._retiring: Subscription | None = None
        self._last_stamp: tuple[int, int] | None = None
        self._policy = self._wanted()
        self._subscription = self._subscribe()

    def follow(self) -> None:
        """Look at the publishers; when what they offer has changed, subscribe anew before the old
        subscription goes."""
        if self._fixed != "auto":
            return
        if self._offered() is None or self._retiring is not None:
            return
        wanted = self._wanted()
        if wanted == self._policy:
            return
        self._policy = wanted
        self._retiring = self._subscription
        self._subscription = self._subscribe()

    def close(self) -> None:
        """Receive nothing more."""
        self._retire()
        self._node.destroy_subscription(self._subscription)

    def _offered(self) -> ReliabilityPolicy | None:
        return qos.offered_reliability(self._node, self._node.resolve_topic_name(self._topic))

    def _wanted(self) -> tuple[ReliabilityPolicy, DurabilityPolicy]:
        """What to ask for, by what is offered."""
        kept = self._latched and qos.offers_what_was_before(
            self._node, self._node.resolve_topic_name(self._topic)
        )
        durability = DurabilityPolicy.TRANSIENT_LOCAL if kept else DurabilityPolicy.VOLATILE
        return qos.reliability_of(self._fixed, self._offered()), durability

    def _subscribe(self) -> Subscription:
        resolved = self._node.resolve_topic_name(self._topic)
        events = SubscriptionEventCallbacks(
            incompatible_qos=lambda event: self._say(
                f"qos {resolved}", qos.mismatch_in_words(event, resolved, "publisher")
            ),
            message_lost=lambda event: self._lost(event.total_count_change),
        )
        reliability, durability = self._policy
        profile = QoSProfile(depth=self._depth, reliability=reliability, durability=durability)
        subscription: Subscription | None = None

        def receive(message: Any) -> None:
            self._on_message(message, subscription)

        subscription = self._node.create_subscription(
            class_of(self._type_name),
            self._topic,
            receive,
            profile,
            callback_group=self._group,
            event_callbacks=events,
        )
        return subscription

    def _on_message(self, message: Any, source: Subscription | None) -> None:
        """Pass a message on; during a hand-over both subscriptions deliver, and each message is
        passed once."""
        received_at = time.monotonic()
        stamp = (message.header.stamp.sec, message.header.stamp.nanosec)
        if self._retiring is not None:
            if source is self._subscription:
                self._retire()
            if stamp == self._last_stamp:
                return
        self._last_stamp = stamp
        self._receive(message, received_at)

    def _retire(self) -> None:
        if self._retiring is not None:
            self._node.destroy_subscription(self._retiring)
            self._retiring = None
