"""Quality of service: follow what the image publisher offers, publish reliable (REP-2003), say a
mismatch once and in words."""

from __future__ import annotations

from typing import Any, Literal

from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy, qos_policy_name_from_kind
from rclpy.qos_overriding_options import QoSOverridingOptions

from flow3r_ros.config import NodeSettings

IMAGE_DEPTH = 5
SIDE_DEPTH = 50
STATIC = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
"""tf2's QoS of /tf_static"""
TF = QoSProfile(depth=100)
"""tf2's QoS of /tf"""
DIAGNOSTICS = QoSProfile(depth=10)


def offered_reliability(node: Node, topic: str) -> ReliabilityPolicy | None:
    """What every publisher of a topic offers at least: None without publishers, best effort as soon
    as one offers only that."""
    offers = [info.qos_profile.reliability for info in node.get_publishers_info_by_topic(topic)]
    if not offers:
        return None
    return (
        ReliabilityPolicy.RELIABLE
        if all(offer is ReliabilityPolicy.RELIABLE for offer in offers)
        else ReliabilityPolicy.BEST_EFFORT
    )


def offers_what_was_before(node: Node, topic: str) -> bool:
    """Whether every publisher of a topic, and there is one, keeps messages for those that come
    late."""
    offers = [info.qos_profile.durability for info in node.get_publishers_info_by_topic(topic)]
    return bool(offers) and all(o is DurabilityPolicy.TRANSIENT_LOCAL for o in offers)


def reliability_of(fixed: str, offered: ReliabilityPolicy | None) -> ReliabilityPolicy:
    """Reliability of a subscription; best effort while nobody publishes, because it matches every
    publisher."""
    if fixed != "auto":
        return ReliabilityPolicy.RELIABLE if fixed == "reliable" else ReliabilityPolicy.BEST_EFFORT
    return offered or ReliabilityPolicy.BEST_EFFORT


def output_profile(settings: NodeSettings, latched: bool = False) -> QoSProfile:
    """Profile of an output topic; `latched` outputs reach subscribers that come late."""
    reliability = (
        ReliabilityPolicy.RELIABLE
        if settings.output_qos == "reliable"
        else ReliabilityPolicy.BEST_EFFORT
    )
    durability = DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE
    return QoSProfile(depth=1 if latched else 5, reliability=reliability, durability=durability)


def overridable() -> QoSOverridingOptions:
    """Makes a topic's QoS overridable by parameters `qos_overrides.<topic>.publisher.reliability`
    and the like."""
    return QoSOverridingOptions.with_default_policies()


def mismatch_in_words(event: Any, topic: str, role: Literal["publisher", "subscriber"]) -> str:
    """One sentence for an incompatible-QoS event on our side of a topic; `role` names the other
    side."""
    policy = qos_policy_name_from_kind(event.last_policy_kind).lower()
    asks = (
        "offers less than our subscription asks"
        if role == "publisher"
        else "asks for more than we offer"
    )
    return (
        f"a {role} of {topic} {asks} ({policy}), so nothing flows between us; set the same "
        f"{policy} on both sides"
    )
