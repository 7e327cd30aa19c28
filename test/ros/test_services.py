"""A node at work: services under load, drops, silence, wheels that make its scale metric."""

from __future__ import annotations

import json
from pathlib import Path

from rclpy.duration import Duration
from rclpy.qos import QoSProfile

from flow3r_ros.ros.messages import make
from test.ros.harness import Client
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import picture


def test_services_under_load(tmp_path):
    domain = fresh_domain()
    arguments = ("-p", f"node.save_dir:={tmp_path / 'maps'}")
    program = ("-m", "test.ros.plane_node", "--step-seconds", "0.05")
    with NodeProcess(domain, *arguments, program=program) as process, Client(domain) as client:
        client.listen("~/status")
        client.connect_camera()
        empty = client.call("std_srvs/srv/Trigger", "~/save_map")
        assert (empty.success, "no map yet" in empty.message) == (False, True)
        answers = []

        def is_saved() -> bool:
            client.play(1, period=0.02)
            answers.append(client.call("std_srvs/srv/Trigger", "~/save_map"))
            return answers[-1].success

        client.wait(is_saved, 20.0, "a map")
        folder = Path(answers[-1].message)
        assert sorted(path.name for path in folder.iterdir()) == [
            "map.ply",
            "metadata.json",
            "trajectory.tum",
        ]
        assert json.loads((folder / "metadata.json").read_text())["points"] > 100
        assert all(
            len(line.split()) == 8 for line in (folder / "trajectory.tum").read_text().splitlines()
        )
        for _ in range(5):
            client.play(5, period=0.01)
            assert client.call("std_srvs/srv/Trigger", "~/reset").success
        client.wait(
            lambda: (
                client.play(1, period=0.05) and client.received["~/status"][-1].frames_received < 20
            ),
            10.0,
            "counters anew",
        )
        status = client.received["~/status"][-1]
        assert 0 <= status.frames_received - status.frames_estimated - sum(status.drop_counts) <= 1
        assert [path.name for path in (tmp_path / "maps").iterdir()] == [folder.name]
        assert "Traceback" not in process.output()


def test_drops_under_load_are_counted():
    domain = fresh_domain()
    with (
        NodeProcess(domain, program=("-m", "test.ros.plane_node", "--step-seconds", "0.1")),
        Client(domain) as client,
    ):
        client.listen("~/status")
        client.connect_camera()
        client.wait(
            lambda: client.play(5, period=0.02) and client.drops().get("busy", 0) > 10,
            20.0,
            "drops of a busy engine",
        )
        client.warm_up("~/status")
        status = client.of("~/status", client.play(1, lockstep="~/status"))[-1]
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        assert status.frames_received <= client.pictures
        assert status.frames_received == status.frames_estimated + sum(drops.values())


def test_silence_is_reported_and_ends():
    domain = fresh_domain()
    with (
        NodeProcess(domain, "-p", "node.silence_timeout:=1.5") as process,
        Client(domain) as client,
    ):
        client.listen("~/status", "/diagnostics")
        client.connect_camera()
        client.warm_up("~/status", "/diagnostics")
        client.wait(
            lambda: "no image for" in client.received["/diagnostics"][-1].status[0].message,
            5.0,
            "a warning in the diagnostics",
        )
        assert "no image for" in process.output()
        client.play(3, lockstep="~/status")
        client.wait(
            lambda: (
                client.play(1, period=0.1)
                and "no image for" not in client.received["/diagnostics"][-1].status[0].message
            ),
            5.0,
            "no word of silence any more",
        )


def test_wheel_odometry_makes_the_scale_metric():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "scale.source:=odometry") as process, Client(domain) as client:
        client.listen("~/status", "~/odometry")
        client.connect_camera()
        wheels = client.publisher("nav_msgs/msg/Odometry", "odom")
        client.wait(
            lambda: client.listened("odom", QoSProfile(depth=1)), 10.0, "a subscription on odom"
        )
        for index in range(60):
            message = make("nav_msgs/msg/Odometry")
            image = client.image(picture(index))
            message.header = image.header
            message.pose.pose.position.x = 0.5 * index
            message.pose.pose.orientation.w = 1.0
            wheels.publish(message)
            assert wheels.wait_for_all_acked(Duration(seconds=40))
            client.publisher("sensor_msgs/msg/Image", "image").publish(image)
            client.wait(lambda index=index: client.count("~/status") > index, 10.0, "an estimate")
            if client.received["~/status"][-1].scale_state == 2:
                break
        status = client.received["~/status"][-1]
        assert status.scale_state == status.SCALE_METRIC, process.output()
        assert status.scale_sigma < 0.15
        client.play(0)
