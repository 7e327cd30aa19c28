"""A transition that fails leaves nothing of itself behind, and succeeds the next time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import rclpy
from rclpy.context import Context
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn

from flow3r_ros.config import Config
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.node import Flow3rNode
from flow3r_ros.ros.publishers import Publishers
from flow3r_ros.ros.side_inputs import SideInputs
from test.ros.node_process import fresh_domain
from test.ros.plane_node import load

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class WallNode(Flow3rNode):
    """Counts how often its engine is freed."""

    def __init__(self, context: Context) -> None:
        self.freed = 0
        super().__init__(self._load_wall, context=context)

    def _load_wall(self, config: Config) -> Loaded:
        loaded = load(config, 0.0)

        def free() -> None:
            self.freed += 1
            loaded.free()

        return replace(loaded, free=free)


@pytest.fixture
def node() -> Iterator[WallNode]:
    """Unconfigured, in this process."""
    context = Context()
    rclpy.init(context=context, domain_id=fresh_domain())
    made = WallNode(context)
    executor = SingleThreadedExecutor(context=context)
    executor.add_node(made)
    yield made
    made.stop(10.0)
    executor.shutdown()
    rclpy.shutdown(context=context)


class FailsOnce:
    """Raises at the first call, and is what it stands for afterwards."""

    def __init__(self, real: Any) -> None:
        self.real, self.failed = real, False

    def __call__(self, *arguments: Any, **named: Any) -> Any:
        if not self.failed:
            self.failed = True
            raise RuntimeError("the middle of it failed")
        return self.real(*arguments, **named)


def inference_threads() -> int:
    """How many threads step an engine."""
    return sum(thread.name == "flow3r_inference" for thread in threading.enumerate())


def test_an_activation_that_fails_halfway_leaves_no_subscription_and_no_thread(
    node: WallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = inference_threads()
    monkeypatch.setattr("flow3r_ros.ros.node.SideInputs", FailsOnce(SideInputs))
    assert node.trigger_configure() is SUCCESS
    assert node.trigger_activate() is FAILURE
    assert (inference_threads(), node.count_subscribers("image")) == (before, 0)
    assert node.trigger_activate() is SUCCESS
    assert (inference_threads(), node.count_subscribers("image")) == (before + 1, 1)


def test_a_configuration_that_fails_halfway_frees_the_model(
    node: WallNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow3r_ros.ros.node.Publishers", FailsOnce(Publishers))
    assert node.trigger_configure() is FAILURE
    assert node.freed == 1
    assert node.trigger_configure() is SUCCESS
    assert node.trigger_activate() is SUCCESS
    assert node.freed == 1
