"""The launch files under the real `ros2 launch`, with the node as it is installed. Runs where
colcon has installed the package; `launch`, `launch_ros` and `ros2` are not on PyPI."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flow3r_ros.ros.messages import class_of
from test.ros.harness import Client
from test.ros.node_process import fresh_domain

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
def launched(
    domain: int, file: str, *arguments: str, path: str = "", prefix: str = ""
) -> Iterator[Launched]:
    """`ros2 launch flow3r_ros FILE ...`, ended by Ctrl-C in the end; `path` comes first on PATH,
    and packages are also looked for in `prefix`."""
    package = () if Path(file).is_absolute() else ("flow3r_ros",)
    command = ["ros2", "launch", *package, file, *arguments]
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "PYTHONUNBUFFERED": "1",
        "PATH": os.pathsep.join(filter(None, (path, os.environ["PATH"]))),
        "AMENT_PREFIX_PATH": os.pathsep.join(
            filter(None, (prefix, os.environ["AMENT_PREFIX_PATH"]))
        ),
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


def test_a_node_that_is_killed_is_started_again_on_request() -> None:
    domain = fresh_domain()
    with launched(domain, "robot.launch.py", "respawn:=true") as run, Client(domain) as client:
        started = "process started with pid ["
        client.wait(lambda: started in run.output(), 20.0, "the node's process")
        os.kill(int(run.output().split(started)[1].split("]")[0]), signal.SIGKILL)
        client.wait(lambda: run.output().count(started) == 2, 20.0, "the node once more")
        assert parameters(client, "node.odom_frame") == ["odom"], "the new one answers"
        assert run.process.poll() is None


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
[ "$2" = record ] && echo recorded "$@" && exec sleep 600
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
    arguments = (
        *(f"bag:={bag}", "linger:=0.5", f"record:={tmp_path / 'out'}"),
        *("namespace:=robot", "name:=eye"),
    )
    with launched(fresh_domain(), "replay.launch.py", *arguments, path=str(tmp_path)) as run:
        assert run.ended() == code
        output = run.output()
        assert output.index("licence of its weights") < output.index(f"played bag play {bag}")
        assert "process has finished cleanly" in output
        recorded = re.search(r"recorded bag record (.*)", output)
        assert recorded is not None
        assert "--use-sim-time" in recorded[1], "on the bag's time"
        assert "--regex (/robot/eye/.*)|" in recorded[1]
        assert ("ros2 bag play ended with exit code 1" in output) == (code == 1)


STAND_IN = """#!{python}
import json, sys
import rclpy
from rclpy.node import Node
rclpy.init(args=sys.argv)
node = Node({name!r}, cli_args={arguments}, automatically_declare_parameters_from_overrides=True)
values = {{name: p.value for name, p in node.get_parameters_by_prefix("").items()}}
print("STOOD IN", json.dumps([node.get_fully_qualified_name(), values]), flush=True)
try:
    rclpy.spin(node)
except BaseException:
    sys.exit(0)
"""
COSTMAP_OF = {
    "humble": ("costmap", ["--ros-args", "-r", "__ns:=/costmap", "-r", "costmap:__node:=costmap"]),
    "jazzy": ("costmap", []),
}
"""how the costmap's own program names its node: Humble's names it itself, whatever launch says"""


def stand_in(prefix: Path, package: str, program: str, name: str, arguments: list[str]) -> None:
    """A package with one program that tells its node's name and its parameters: Nav2 and
    robot_localization need apt."""
    index = prefix / "share/ament_index/resource_index/packages"
    index.mkdir(parents=True, exist_ok=True)
    (index / package).touch()
    file = prefix / "lib" / package / program
    file.parent.mkdir(parents=True)
    file.write_text(STAND_IN.format(python=sys.executable, name=name, arguments=arguments))
    file.chmod(0o755)


@pytest.mark.parametrize("distribution", COSTMAP_OF)
def test_filter_costmap_and_manager_get_their_recipes(tmp_path: Path, distribution: str) -> None:
    stand_in(tmp_path, "robot_localization", "ekf_node", "ekf_filter_node", [])
    stand_in(tmp_path, "nav2_costmap_2d", "nav2_costmap_2d", *COSTMAP_OF[distribution])
    stand_in(tmp_path, "nav2_lifecycle_manager", "lifecycle_manager", "lifecycle_manager", [])
    domain = fresh_domain()
    arguments = ("base_frame:=body", "odom_frame:=odo", "use_sim_time:=true", "sensor_frame:=eye")
    with (
        launched(domain, "navigation.launch.py", *arguments, prefix=str(tmp_path)) as run,
        Client(domain) as client,
    ):
        client.wait(
            lambda: run.output().count("STOOD IN") == 3 or run.process.poll() is not None,
            60.0,
            "the three programs",
        )
        told = [json.loads(line) for line in re.findall(r"STOOD IN (.*)", run.output())]
        of = {name.rsplit("/", 1)[-1]: (name, values) for name, values in told}
        name, costmap = of["costmap"]
        assert of["lifecycle_manager_costmap"][1]["node_names"] == [name.lstrip("/")]
        ekf = of["ekf_filter_node"][1]
        assert (ekf["odom0"], ekf["base_link_frame"], ekf["odom_frame"], ekf["frequency"]) == (
            "/flow3r/odometry", "body", "odo", 30.0,
        )  # fmt: skip
        assert (costmap["global_frame"], costmap["robot_base_frame"]) == ("odo", "body")
        assert costmap["obstacles.flow3r.topic"] == "/flow3r/obstacles"
        assert costmap["obstacles.flow3r.sensor_frame"] == "eye"
        assert costmap["plugins"] == ["obstacles", "inflation"]
        assert all(values["use_sim_time"] for _, values in told)
        names = ("node.publish_tf", "scale.source", "node.base_frame")
        assert parameters(client, *names) == [False, "odometry", "body"]
