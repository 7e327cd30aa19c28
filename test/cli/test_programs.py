"""Programs that need ROS 2 say in one line what is missing and what to do."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PROGRAMS = ("node", "example_consumer")


def start(program: str, *missing: str) -> subprocess.CompletedProcess[str]:
    """A pip script where modules cannot be imported."""
    code = (
        f"import sys\nfor name in {missing!r}: sys.modules[name] = None\n"
        f"from flow3r_ros.cli import programs\nsys.exit(programs.{program}(['program']))"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_ros(program: str) -> None:
    done = start(program, "rclpy")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "ROS 2 is not importable" in done.stderr
    assert "make setup" in done.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_without_our_messages(program: str) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    done = start(program, "flow3r_ros.msg")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "colcon build --packages-select flow3r_ros" in done.stderr
    assert "make setup" in done.stderr


@pytest.mark.parametrize("number", ["SIGINT", "SIGTERM"])
@pytest.mark.parametrize(
    ("call", "loading"),
    [
        ("node(['program'])", "flow3r_ros.ros.process"),
        ("node(['program'])", "importlib.metadata"),
        ("flow3r()", "flow3r_ros.cli.main"),
        ("flow3r()", "importlib.metadata"),
    ],
)
def test_a_signal_while_the_node_is_loading_ends_it_quietly(
    number: str, call: str, loading: str
) -> None:
    """As Ctrl-C right after `ros2 launch` or `flow3r node`: the imports alone take seconds."""
    code = f"""
import os, signal, sys
class Signalled:
    def find_spec(self, name, *_):
        if name == "{loading}":
            os.kill(os.getpid(), signal.{number})
sys.meta_path.insert(0, Signalled())
sys.argv = ["flow3r", "node"]
from flow3r_ros.cli import programs
sys.exit(programs.{call})
"""
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("package", ["sensor_msgs_py", "tf_transformations"])
def test_the_example_consumer_names_the_package_it_lacks(package: str) -> None:
    pytest.importorskip("rclpy", reason="rclpy is not installed")
    done = start("example_consumer", package, "sensor_msgs_py")
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "sudo apt install ros-$ROS_DISTRO-sensor-msgs-py" in done.stderr


@pytest.mark.parametrize("program", ["flow3r()", "node(['program'])"])
def test_a_package_of_the_system_that_is_too_old_is_named(tmp_path: Path, program: str) -> None:
    """As on Debian 12 and Ubuntu 24.04 outside the virtual environment."""
    old = tmp_path / "pydantic-1.10.4.dist-info"
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: pydantic\nVersion: 1.10.4\n")
    code = (
        f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nsys.modules['pydantic'] = None\n"
        f"from flow3r_ros.cli import programs\nsys.exit(programs.{program})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert "pydantic 2.0 or newer is needed" in done.stderr
    assert "1.10.4" in done.stderr
    assert "scripts/robot_venv.sh" in done.stderr
