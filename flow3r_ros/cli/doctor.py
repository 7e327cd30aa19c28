"""`flow3r doctor`: looks at an installation the way a helpful colleague would, and says what to do
about each failure.

Every check is a function that returns what it found or raises `Failed`; heavy packages are imported
by name inside the checks, so a broken one is a finding and not a crash.
"""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from flow3r_ros.errors import Flow3rError


@dataclass(frozen=True)
class Finding:
    """One line of the doctor's report; `status` is `ok`, `warning` or `failed`."""

    check: str
    status: str
    found: str
    cure: str = ""

    def as_dict(self) -> dict[str, str]:
        """For --json."""
        return asdict(self)


class Failed(Exception):  # noqa: N818 - a finding, not an error of the program
    """A check did not pass; `optional` ones are warnings."""

    def __init__(self, found: str, cure: str, optional: bool = False) -> None:
        super().__init__(found)
        self.found, self.cure, self.optional = found, cure, optional


def examine(model: str = "flow3r_nano") -> list[Finding]:
    """Run every check; never raises."""
    checks: list[tuple[str, Callable[[], str]]] = [
        ("python", _python),
        ("core packages", _core),
        ("torch", _torch),
        ("gpu", _gpu),
        ("rosbags", lambda: _version("rosbags", "pip install rosbags")),
        ("ros", _ros),
        ("messages", _messages),
        ("dds profile", _dds_profile),
        (f"model {model}", lambda: _model(model)),
    ]
    return [_run(name, check) for name, check in checks]


def _run(name: str, check: Callable[[], str]) -> Finding:
    try:
        return Finding(name, "ok", check())
    except Failed as failure:
        return Finding(
            name, "warning" if failure.optional else "failed", failure.found, failure.cure
        )
    except Flow3rError as error:
        return Finding(name, "failed", error.what, error.cure)
    except Exception as error:  # a broken native library raises anything; the doctor reports it
        return Finding(
            name,
            "failed",
            f"{type(error).__name__}: {error}".splitlines()[0],
            "reinstall: make setup",
        )


def _python() -> str:
    return f"{platform.python_version()} at {sys.executable}"


def _module(name: str, cure: str, optional: bool = False) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise Failed(f"{name} does not import ({error})", cure, optional) from error


def _version(name: str, cure: str, optional: bool = False) -> str:
    module = _module(name, cure, optional)
    return f"{name} {getattr(module, '__version__', 'present')}"


def _core() -> str:
    return ", ".join(
        _version(name, "make setup") for name in ("numpy", "cv2", "pydantic", "safetensors")
    )


def _torch() -> str:
    torch = _module("torch", "pip install torch (the CPU build is enough to start)")
    return f"torch {torch.__version__}, {torch.get_num_threads()} CPU threads"


def _gpu() -> str:
    torch = _module("torch", "pip install torch")
    if not torch.cuda.is_available():
        raise Failed(
            "no CUDA device",
            "fine for the nano model; for larger ones install a CUDA build of torch",
            optional=True,
        )
    free, total = torch.cuda.mem_get_info()
    return f"{torch.cuda.get_device_name()}, {free / 2**30:.1f} of {total / 2**30:.1f} GiB free"


def _ros() -> str:
    _module(
        "rclpy",
        "source /opt/ros/DISTRO/setup.bash, or make setup for the wheels; replay and "
        "run work without ROS",
        optional=True,
    )
    return (
        f"rclpy, distribution {os.environ.get('ROS_DISTRO', 'from wheels')}, domain "
        f"{os.environ.get('ROS_DOMAIN_ID', '0')}"
    )


def _messages() -> str:
    _module("rclpy", "install ROS first; replay and run work without it", optional=True)
    _module("flow3r_ros.msg", "build the package: colcon build, or make setup")
    return "flow3r_ros.msg.TrackingStatus imports"


def _dds_profile() -> str:
    for variable in ("FASTRTPS_DEFAULT_PROFILES_FILE", "FASTDDS_DEFAULT_PROFILES_FILE"):
        path = os.environ.get(variable)
        if path and not os.path.exists(path):
            raise Failed(
                f"{variable} names {path}, which does not exist",
                "point it at config/fastdds_large_messages.xml",
            )
        if path:
            return f"{variable}={path}"
    shm = shutil.disk_usage("/dev/shm").free if os.path.isdir("/dev/shm") else 0
    raise Failed(
        f"default Fast DDS profile ({shm / 2**20:.0f} MiB of shared memory free)",
        "for best-effort cameras over shared memory set FASTRTPS_DEFAULT_PROFILES_FILE "
        "to config/fastdds_large_messages.xml",
        optional=True,
    )


def _model(name: str) -> str:
    checkpoint = importlib.import_module("flow3r_ros.network.checkpoint")
    return str(checkpoint.verify_model(name))
