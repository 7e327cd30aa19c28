"""The launch files under the real `ros2 launch`, with the node as it is installed. Runs where
colcon has installed the package; `launch`, `launch_ros` and `ros2` are not on PyPI."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flow3r_ros.ros.messages import class_of
from test.ros.harness import Client, fresh_domain

pytestmark = pytest.mark.skipif(
    shutil.which("ros2") is None
    or not any(
        Path(prefix, "lib/flow3r_ros/flow3r_node").is_file()
        for prefix in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    ),
    reason="needs ros2 launch and an installed flow3r_ros: on a robot, after colcon build",
)


class Launched:
    """A running `ros2 launch`."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self.process, self._log = process, log

    def output(self) -> str:
        """Everything it printed so far."""
        return self._log.read_text()

    def ended(self) -> int:
        """Exit code, once it has ended by itself."""
        return self.process.wait(120)


@contextmanager
def launched(domain: int, file: str, *arguments: str, path: str = "") -> Iterator[Launched]:
    """`ros2 launch flow3r_ros FILE ...`, ended by Ctrl-C in the end; `path` comes first on PATH."""
    package = () if Path(file).is_absolute() else ("flow3r_ros",)
    command = ["ros2", "launch", *package, file, *arguments]
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join(filter(None, (path, os.environ["PATH"]))),
    }
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder, "log")
        with log.open("w") as stream:
            process = subprocess.Popen(
                command, env=environment, stdout=stream, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        run = Launched(process, log)
        try:
            yield run
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
                process.wait(60)
            print(run.output())  # noqa: T201 - for the report of a failed test


def parameters(client: Client, *names: str) -> list[object]:
    """Values of parameters of the client's node."""
    request = class_of("rcl_interfaces/srv/GetParameters").Request(names=list(names))
    answer = client.call("rcl_interfaces/srv/GetParameters", "~/get_parameters", request, 60.0)
    return [{1: v.bool_value, 4: v.string_value}[v.type] for v in answer.values]


def test_only_what_was_typed_overrides_the_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "/**:\n  ros__parameters:\n    use_sim_time: true\n    model: {device: cpu}\n"
        "    node: {base_frame: body, image_transport: compressed, odom_frame: mine}\n"
    )
    domain = fresh_domain()
    arguments = (f"params_file:={file}", "odom_frame:=typed", "log_level:=debug")
    with launched(domain, "robot.launch.py", *arguments), Client(domain) as client:
        names = ("node.base_frame", "node.image_transport", "node.odom_frame", "model.device")
        values = parameters(client, *names, "use_sim_time")
        assert values == ["body", "compressed", "typed", "cpu", True]


def test_a_node_that_is_killed_ends_the_launch_with_exit_code_1() -> None:
    domain = fresh_domain()
    with launched(domain, "robot.launch.py") as run, Client(domain) as client:
        client.wait(lambda: "process started with pid" in run.output(), 20.0, "the node's process")
        pid = int(run.output().split("process started with pid [")[1].split("]")[0])
        os.kill(pid, signal.SIGKILL)
        assert run.ended() == 1
        assert "flow3r died with exit code -9" in run.output()


def test_rviz_that_is_not_there_is_said_before_anything_starts() -> None:
    if any((Path(p) / "share/rviz2").exists() for p in os.environ["AMENT_PREFIX_PATH"].split(":")):
        pytest.skip("rviz2 is installed")
    with launched(fresh_domain(), "robot.launch.py", "rviz:=true") as run:
        assert run.ended() == 1
        assert "sudo apt install ros-$ROS_DISTRO-rviz2" in run.output()
        assert "process started" not in run.output()


def test_two_cameras_in_one_launch_share_one_edge() -> None:
    domain = fresh_domain()
    arguments = ("cameras:=front,rear", "base_frame:=base_link")
    with launched(domain, "multi.launch.py", *arguments):
        names = ("node.odom_frame", "node.publish_tf")
        with Client(domain, "/front") as front, Client(domain, "/rear") as rear:
            assert parameters(front, *names) == ["odom", True]
            assert parameters(rear, *names) == ["rear/odom", False]


def test_the_edges_of_two_robots_stay_apart(tmp_path: Path) -> None:
    """A launch of the user's, which includes ours twice."""
    file = tmp_path / "two.launch.py"
    file.write_text(
        "from launch import LaunchDescription\n"
        "from launch.actions import GroupAction, IncludeLaunchDescription\n"
        "from launch.substitutions import PathJoinSubstitution\n"
        "from launch_ros.substitutions import FindPackageShare\n"
        "def generate_launch_description():\n"
        "    ours = [FindPackageShare('flow3r_ros'), 'launch', 'robot.launch.py']\n"
        "    return LaunchDescription([GroupAction([IncludeLaunchDescription(\n"
        "        PathJoinSubstitution(ours), launch_arguments=[('namespace', name),\n"
        "        ('tf', 'tf'), ('tf_static', 'tf_static'), ('odom_frame', name + '/odom')])])\n"
        "        for name in ('r1', 'r2')])\n"
    )
    domain = fresh_domain()
    with launched(domain, str(file)), Client(domain, "/r1") as client:
        for robot in ("r1", "r2"):
            client.wait(
                lambda robot=robot: client.node.count_publishers(f"/{robot}/tf") == 1,
                60.0,
                f"tf of {robot}",
            )
        assert client.node.count_publishers("/tf") == 0
        assert parameters(client, "node.odom_frame") == ["r1/odom"]


BAG = """#!/bin/sh
[ "$1" = bag ] || exec {ros2} "$@"
[ "$2" = record ] && exec sleep 600
echo played "$@"
[ "$3" != broken ]
"""
"""`ros2` whose `bag` plays nothing, at once: rosbag2 needs apt"""


@pytest.mark.parametrize(("bag", "code"), [("good", 0), ("broken", 1)])
def test_a_replay_plays_once_the_node_is_active_and_ends_with_the_bag(
    tmp_path: Path, bag: str, code: int
) -> None:
    ros2 = tmp_path / "ros2"
    ros2.write_text(BAG.format(ros2=shutil.which("ros2")))
    ros2.chmod(0o755)
    arguments = (f"bag:={bag}", "linger:=0.5", f"record:={tmp_path / 'out'}")
    with launched(fresh_domain(), "replay.launch.py", *arguments, path=str(tmp_path)) as run:
        assert run.ended() == code
        output = run.output()
        assert output.index("licence of its weights") < output.index(f"played bag play {bag}")
        assert "process has finished cleanly" in output
        assert ("ros2 bag play ended with exit code 1" in output) == (code == 1)
