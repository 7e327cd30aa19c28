"""The programs as pip's scripts and colcon's start them: where Python packages are too old, or
ROS 2 or our messages are missing, one line says so and what to do.

A robot's system Python has some of our packages in old versions (pydantic 1.10 on Ubuntu 24.04 and
Debian 12), so this is looked at before anything of them is imported.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from flow3r_ros.errors import ConfigError, Flow3rError

LEAST = {"pydantic": (2, 0), "typer": (0, 12)}
"""oldest versions that work, as in pyproject.toml"""
ENVIRONMENT = {"OPENBLAS_NUM_THREADS": "1"}
"""unless it says otherwise; numpy reads it when it is imported: on two cores the threads it has for
large matrices took a seventh of the odometry's CPU, waiting for each other over small ones"""


def flow3r() -> int:
    """`flow3r`: the command line; the exit code of the process."""
    os.environ.update(ENVIRONMENT | os.environ)
    if sys.argv[1:2] == ["node"]:
        _end_quietly_on_signals()
    try:
        check_packages()
    except Flow3rError as error:
        return _fail(error)
    import_module("flow3r_ros.cli.main").main()
    return 0


def node(arguments: Sequence[str] | None = None) -> int:
    """`flow3r_node`: the lifecycle node; ends the process.

    A signal while the packages load ends it, with 0 as later on: nothing has begun yet.
    """
    _end_quietly_on_signals()
    code = _run("flow3r_ros.ros.process", arguments)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking torch down takes 1.7 s of CPU, and launch kills what is slow to end


def example_consumer(arguments: Sequence[str] | None = None) -> int:
    """`flow3r_example_consumer`: the nearest obstacle, from the node's topics."""
    return _run("flow3r_ros.ros.example_consumer", arguments)


def check_packages() -> None:
    """Raise ConfigError where a Python package is missing, or older than `LEAST`."""
    from importlib.metadata import PackageNotFoundError, version  # slow; signals are heard by now

    for name, least in LEAST.items():
        try:
            found = version(name)
        except PackageNotFoundError:
            found = "no version"
        numbers = tuple(int(part) for part in found.split(".")[:2] if part.isdecimal())
        if numbers < least:
            raise ConfigError(
                f"{name} {'.'.join(map(str, least))} or newer is needed, and {sys.executable} has "
                f"{found}",
                "start it inside the virtual environment (source ~/flow3r-venv/bin/activate); "
                "scripts/robot_venv.sh makes one",
            )


def program(name: str) -> Callable[[Sequence[str] | None], int]:
    """`main` of a module of `flow3r_ros.ros`. Raises ConfigError as `module`."""
    main: Callable[[Sequence[str] | None], int] = module(name).main
    return main


def module(name: str) -> Any:
    """A module of `flow3r_ros.ros`. Raises ConfigError where ROS 2 is not importable or our
    messages are not built."""
    check_packages()
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


def _end_quietly_on_signals() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: os._exit(0))


def _import(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError as error:
        raise ConfigError(
            f"ROS 2 is not importable ({error})",
            "source /opt/ros/DISTRO/setup.bash, or run make setup in a checkout",
        ) from error


def _run(name: str, arguments: Sequence[str] | None) -> int:
    os.environ.update(ENVIRONMENT | os.environ)
    try:
        return program(name)(arguments)
    except Flow3rError as error:
        return _fail(error)


def _fail(error: Flow3rError) -> int:
    sys.stderr.write(f"flow3r: {error}\n")
    return 1
