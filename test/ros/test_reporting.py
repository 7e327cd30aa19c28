"""What the node says once a second, in the test's own process."""

from __future__ import annotations

import time
from types import SimpleNamespace
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor

from flow3r_ros.config import Config
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.ros.once import Once
from flow3r_ros.ros.reporting import Reporting
from flow3r_ros.wire.transforms import header_of
from test.ros.node_process import PATIENCE, fresh_domain

NOW_NS = 1_700_000_000_000_000_000


@pytest.mark.parametrize(
    ("offset_s", "words"),
    [(0.25, "0.250 s ahead of this node's clock"), (-60.0, "60.000 s behind this node's clock")],
)
def test_stamps_far_from_the_clock_are_said_once_with_the_offset(
    offset_s: float, words: str
) -> None:
    context, said = Context(), []
    rclpy.init(context=context, domain_id=fresh_domain())
    node = rclpy.create_node("flow3r", context=context)
    logger: Any = SimpleNamespace(warning=said.append)
    reporting = Reporting(node, Config(), Once(logger), lambda: ("active", None, None, None))
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(node)
    image = make("sensor_msgs/msg/Image")
    for late_s in (0.0, -offset_s, -offset_s):
        stamp_ns = NOW_NS - int(late_s * 1e9)
        image.header = header_of(make, stamp_ns, "camera")
        reporting.received(image, NOW_NS)
        executor.spin_once()  # the report, a second later
        assert len(said) == (late_s != 0.0), said
    assert words in said[0]
    executor.shutdown()
    rclpy.shutdown(context=context)


@pytest.mark.parametrize(("names", "times"), [(("flow3r", "flow3r"), 1), (("flow3r", "other"), 0)])
def test_a_second_node_of_the_same_name_is_said_once(
    monkeypatch: pytest.MonkeyPatch, names: tuple[str, str], times: int
) -> None:
    monkeypatch.setattr("flow3r_ros.ros.reporting.TWIN_PATIENCE", 2)
    domain, said = fresh_domain(), []
    contexts = Context(), Context()
    logger: Any = SimpleNamespace(warning=said.append)
    for context in contexts:
        rclpy.init(context=context, domain_id=domain)
    nodes = [
        rclpy.create_node(name, context=context)
        for name, context in zip(names, contexts, strict=True)
    ]
    for node in nodes:
        node.create_publisher(class_of("nav_msgs/msg/Odometry"), "~/odometry", 1)
    executor = SingleThreadedExecutor(context=contexts[1])
    executor.add_node(nodes[1])
    Reporting(nodes[1], Config(), Once(logger), lambda: ("active", None, None, None))
    end = time.monotonic() + (5.0 if times == 0 else 10.0 * PATIENCE)
    while time.monotonic() < end and (times == 0 or not said):
        executor.spin_once(1.0)
    for _ in range(2):
        executor.spin_once()
    assert len(said) == times, said
    assert not said or "two nodes have one name" in said[0]
    executor.shutdown()
    for context in contexts:
        rclpy.shutdown(context=context)
