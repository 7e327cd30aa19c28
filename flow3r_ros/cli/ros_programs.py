"""The programs that need ROS 2, as pip's scripts and `flow3r node` start them: where ROS 2 or our
messages are missing, one line says so and what to do."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from flow3r_ros.errors import ConfigError, Flow3rError


def node(arguments: Sequence[str] | None = None) -> int:
    """`flow3r_node`: the lifecycle node; the exit code of the process."""
    return _run("flow3r_ros.ros.process", arguments)


def example_consumer(arguments: Sequence[str] | None = None) -> int:
    """`flow3r_example_consumer`: the nearest obstacle, from the node's topics."""
    return _run("flow3r_ros.ros.example_consumer", arguments)


def program(name: str) -> Callable[[Sequence[str] | None], int]:
    """`main` of a module of `flow3r_ros.ros`. Raises ConfigError as `module`."""
    main: Callable[[Sequence[str] | None], int] = module(name).main
    return main


def module(name: str) -> Any:
    """A module of `flow3r_ros.ros`. Raises ConfigError where ROS 2 is not importable or our
    messages are not built."""
    _import("rclpy")
    try:
        import_module("flow3r_ros.msg")
    except ImportError as error:
        raise ConfigError(
            "the messages of flow3r_ros (flow3r_ros.msg) are not built, and pip cannot build them",
            "colcon build --packages-select flow3r_ros in a workspace and source its "
            "install/setup.bash, or run make setup in a checkout",
        ) from error
    return _import(name)


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ROS 2 is not importable ({error})",
            "source /opt/ros/DISTRO/setup.bash, or run make setup in a checkout",
        ) from error


def _run(name: str, arguments: Sequence[str] | None) -> int:
    try:
        return program(name)(arguments)
    except Flow3rError as error:
        sys.stderr.write(f"flow3r: {error}\n")
        return 1
