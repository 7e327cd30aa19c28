"""The node as a process: lifecycle, parameters, services, names, tf, time, silence, signals."""

from __future__ import annotations

import json
import signal
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from rclpy.duration import Duration
from rclpy.qos import QoSProfile

from flow3r_ros.config import Config
from flow3r_ros.geometry.frames import odom_from_optical
from flow3r_ros.geometry.lie import so3_exp
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.ros.messages import class_of, make
from flow3r_ros.types import Frame
from flow3r_ros.wire.transforms import matrix_of_pose, tf_message
from test.ros.consumer import check_as_a_filter_would
from test.ros.harness import (
    EPOCH_NS,
    LATCHED,
    PERIOD_NS,
    ROOT,
    Client,
    NodeProcess,
    fresh_domain,
    stamp_of,
)
from test.ros.plane_node import WallPredictor
from test.ros.scene import picture, wall_camera

CONFIGURE, CLEANUP, ACTIVATE, DEACTIVATE = 1, 2, 3, 4


def _change_state(client: Client, transition: int) -> bool:
    request = class_of("lifecycle_msgs/srv/ChangeState").Request()
    request.transition.id = transition
    return client.call("lifecycle_msgs/srv/ChangeState", "~/change_state", request).success


def _set(client: Client, name: str, **value: object) -> tuple[bool, str]:
    kinds = {"bool_value": 1, "integer_value": 2, "double_value": 3, "string_value": 4}
    (field, content), *_ = value.items()
    request = class_of("rcl_interfaces/srv/SetParameters").Request()
    request.parameters = [
        make(
            "rcl_interfaces/msg/Parameter",
            name=name,
            value=make("rcl_interfaces/msg/ParameterValue", type=kinds[field], **{field: content}),
        )
    ]
    result = client.call("rcl_interfaces/srv/SetParameters", "~/set_parameters", request).results[0]
    return result.successful, result.reason


def test_twenty_rounds_of_the_lifecycle_leak_nothing():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "autostart:=false") as process, Client(domain) as client:
        client.listen("~/status")
        sizes, threads = [], []
        assert _set(client, "engine.window", integer_value=3) == (True, "")
        for _ in range(20):
            assert _change_state(client, CONFIGURE)
            assert _change_state(client, ACTIVATE)
            client.connect_camera()
            before = client.count("~/status")
            client.wait(
                lambda before=before: (
                    client.play(1, period=0.1) and client.count("~/status") > before
                ),
                10.0,
                "an estimate",
            )
            assert _change_state(client, DEACTIVATE)
            if not sizes:
                refused, reason = _set(client, "engine.window", integer_value=4)
                assert (refused, "read at configure" in reason) == (False, True)
            assert _change_state(client, CLEANUP)
            sizes.append(process.rss_mb())
            threads.append(len(list(Path(f"/proc/{process.process.pid}/task").iterdir())))
        assert not client.node.get_publishers_info_by_topic(client.name("~/odometry"))
        assert np.median(sizes[15:]) - np.median(sizes[5:10]) < 8.0, sizes
        assert threads[-1] <= threads[5] + 1, threads
        assert "Traceback" not in process.output()


def test_parameters_from_yaml_and_at_run_time(tmp_path):
    settings = tmp_path / "node.yaml"
    settings.write_text(
        "flow3r:\n  ros__parameters:\n    depth: {min_confidence: 0.5}\n    node: "
        "{odom_frame: world}\n    spelled: wrong\n"
    )
    domain = fresh_domain()
    with NodeProcess(domain, "--params-file", str(settings)) as process, Client(domain) as client:
        client.listen("~/odometry", "~/points")
        client.connect_camera()
        client.wait(
            lambda: (
                client.play(1, period=0.1)
                and client.count("~/odometry")
                and client.count("~/points")
            ),
            15.0,
            "outputs",
        )
        assert client.received["~/odometry"][0].header.frame_id == "world"
        client.wait(
            lambda: client.play(1, period=0.1) and _kept(client) > 0,
            15.0,
            "points above half confidence",
        )
        assert _set(client, "depth.min_confidence", double_value=1.0) == (True, "")
        client.wait(
            lambda: client.play(1, period=0.1) and _kept(client) == 0, 15.0, "an empty cloud"
        )
        refused, reason = _set(client, "depth.min_confidence", double_value=1.5)
        assert not refused
        assert reason
        refused, reason = _set(client, "cloud.edge_ratio", double_value=0.0)
        assert (refused, "greater than 0" in reason) == (False, True)
        refused, reason = _set(client, "engine.window", integer_value=8)
        assert (refused, "engine.window is read at configure" in reason) == (False, True)
        assert "'spelled' does not exist" in process.output()
        request = class_of("rcl_interfaces/srv/DescribeParameters").Request(
            names=["engine.window", "depth.min_confidence"]
        )
        window, confidence = client.call(
            "rcl_interfaces/srv/DescribeParameters", "~/describe_parameters", request
        ).descriptors
        assert (
            window.integer_range[0].from_value,
            window.integer_range[0].to_value,
        ) == (0, 64)
        assert confidence.floating_point_range[0].to_value == 1.0
        assert window.description == (
            "keyframes per forward, the newest included, at least 2; 0 = as the model's "
            "manifest says (`input.window`) (read at configure)"
        )


def _kept(client: Client) -> int:
    cloud = client.received["~/points"][-1]
    values = np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)
    return int(np.isfinite(values[:, 2]).sum())


@pytest.mark.parametrize(
    "argument", ["engine.window:=100", "engine.window:=many", "node.map_period:=0.0"]
)
def test_a_wrong_value_at_start_is_one_line_and_exit_1(argument):
    with NodeProcess(fresh_domain(), "-p", argument) as process:
        assert process.ended() == 1
        lines = [line for line in process.output().splitlines() if line.startswith("flow3r: ")]
        assert len(lines) == 1
        assert argument.split(":=")[0] in lines[0]
        assert "Traceback" not in process.output()


def test_an_unknown_model_is_one_line_and_exit_1():
    command = ("-m", "flow3r_ros.cli.main", "node")
    with NodeProcess(fresh_domain(), "-p", "model.name:=no_such_model", program=command) as process:
        assert process.ended() == 1
        assert "no_such_model: no such model" in process.output()
        assert "Traceback" not in process.output()


def test_namespace_and_remaps():
    domain = fresh_domain()
    arguments = (
        "-r",
        "__ns:=/robot",
        "-r",
        "image:=/front/image_raw",
        "-r",
        "camera_info:=/front/camera_info",
        "-r",
        "__node:=eye",
    )
    with NodeProcess(domain, *arguments), Client(domain, namespace="/robot", node="eye") as client:
        client.listen("~/odometry")
        images = client.publisher("sensor_msgs/msg/Image", "/front/image_raw")
        infos = client.publisher("sensor_msgs/msg/CameraInfo", "/front/camera_info")
        client.wait(
            lambda: infos.get_subscription_count() and images.get_subscription_count(),
            15.0,
            "subscriptions under the new names",
        )
        for index in range(800):
            infos.publish(client.info())
            images.publish(client.image(picture(index)))
            if client.within(0.1, lambda: client.count("~/odometry")):
                break
        assert client.name("~/odometry") == "/robot/eye/odometry"
        assert client.count("~/odometry")


def test_tf_and_odometry_go_through_the_static_extrinsics_as_a_filter_wants_them():
    mounted = np.eye(4)
    mounted[:3, :3], mounted[:3, 3] = so3_exp(np.array([-1.2, 1.2, -1.1])), (0.3, 0.1, 0.5)
    domain = fresh_domain()
    with (
        NodeProcess(
            domain,
            *("-p", "node.base_frame:=base_link", "-p", "scale.source:=fixed"),
            *("-p", "obstacles.min_height:=-9.0", "-p", "obstacles.min_confidence:=0.0"),
            *("-p", "obstacles.max_height:=9.0", "-p", "obstacles.max_range:=99.0"),
        ) as process,
        Client(domain) as client,
    ):
        client.listen("/tf", "~/odometry", "~/status", "~/obstacles")
        client.connect_camera()
        client.play(2, period=0.3)
        client.wait(
            lambda: "no static transform base_link -> cam_optical" in process.output(),
            10.0,
            "a remark about the missing tf",
        )
        static = client.publisher("tf2_msgs/msg/TFMessage", "/tf_static", LATCHED)
        static.publish(tf_message(make, 0, "base_link", "cam_optical", mounted))
        client.wait(lambda: client.play(1, period=0.1) and client.count("/tf") >= 4, 15.0, "tf")
        edge = client.received["/tf"][-1].transforms[0]
        assert (edge.header.frame_id, edge.child_frame_id) == ("odom", "base_link")
        odometry = client.of("~/odometry", [stamp_of(edge)])[0]
        moved = matrix_of_pose(odometry.pose.pose)[:3, 3]
        # the camera looks along R z and moves along R x: so does the base
        assert np.dot(moved / np.linalg.norm(moved), mounted[:3, 0]) == pytest.approx(1.0, abs=0.02)
        client.play(15, lockstep="~/odometry")
        check_as_a_filter_would(client.received["~/odometry"][-14:], "odom", "base_link")
        obstacles = client.wait_for("~/obstacles")[-1]
        assert obstacles.header.frame_id == "base_link"
        assert obstacles.width > 100


def test_an_inverted_edge_hangs_under_the_camera():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "node.invert_tf:=true"), Client(domain) as client:
        client.listen("/tf", "~/odometry")
        client.connect_camera()
        client.warm_up("/tf", "~/odometry")
        stamps = client.play(5, lockstep="~/odometry")
        for message, odometry in zip(
            client.of("/tf", stamps), client.of("~/odometry", stamps), strict=True
        ):
            (edge,) = message.transforms
            assert (edge.header.frame_id, edge.child_frame_id) == ("cam_optical", "odom")
            back = matrix_of_pose(
                SimpleNamespace(
                    position=edge.transform.translation, orientation=edge.transform.rotation
                )
            )
            np.testing.assert_allclose(
                back @ matrix_of_pose(odometry.pose.pose), np.eye(4), atol=1e-12
            )
        assert np.linalg.norm(back[:3, 3]) > 0.01


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
            lambda: client.play(5, period=0.02) and _drops(client).get("busy", 0) > 10,
            20.0,
            "drops of a busy engine",
        )
        client.warm_up("~/status")
        status = client.of("~/status", client.play(1, lockstep="~/status"))[-1]
        drops = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
        assert status.frames_received <= client.pictures
        assert status.frames_received == status.frames_estimated + sum(drops.values())


def _drops(client: Client) -> dict[str, int]:
    """Drops by reason in the last status; empty before the first."""
    if not client.count("~/status"):
        return {}
    status = client.received["~/status"][-1]
    return dict(zip(status.drop_reasons, status.drop_counts, strict=True))


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


def test_the_trajectory_equals_that_of_the_engine_alone():
    domain = fresh_domain()
    with NodeProcess(domain) as process, Client(domain) as client:
        client.listen("~/odometry")
        client.connect_camera()
        client.warm_up("~/odometry")
        stamps = client.play(15, lockstep="~/odometry")
        client.of("~/odometry", stamps)
        received = {
            stamp_of(message): matrix_of_pose(message.pose.pose)
            for message in client.received["~/odometry"]
        }
        played = client.pictures
        assert "dropped" not in process.output()
    with Engine(WallPredictor(0.0), Config()) as engine:
        for index in range(played):
            stamp = EPOCH_NS + (index + 1) * PERIOD_NS
            for estimate in engine.step(Frame(index, stamp, picture(index), wall_camera())):
                if estimate.stamp_ns in received:
                    expected = odom_from_optical(estimate.T_odom_cam)
                    np.testing.assert_allclose(received[estimate.stamp_ns], expected, atol=1e-12)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(number):
    domain = fresh_domain()
    with (
        NodeProcess(
            domain, program=("-m", "test.ros.plane_node", "--step-seconds", "0.2")
        ) as process,
        Client(domain) as client,
    ):
        client.listen("~/status")
        client.connect_camera()
        client.play(5, period=0.05)
        process.process.send_signal(number)
        while process.process.poll() is None:  # also while the interpreter ends
            process.process.send_signal(number)
            time.sleep(0.002)
        assert process.ended() == 0
        assert "Traceback" not in process.output()
        assert "Exception" not in process.output()


def test_a_signal_does_not_wait_for_a_step_that_never_ends():
    domain = fresh_domain()
    with (
        NodeProcess(
            domain, program=("-m", "test.ros.plane_node", "--step-seconds", "100000")
        ) as process,
        Client(domain) as client,
    ):
        client.connect_camera()
        client.wait(
            lambda: client.play(1, period=0.1) and "the first step begins" in process.output(),
            20.0,
            "a step in progress",
        )
        assert process.stop() == 0
        assert "Traceback" not in process.output()


def test_a_signal_while_the_model_is_loading():
    domain = fresh_domain()
    with (
        NodeProcess(domain, program=("-m", "flow3r_ros.cli.main", "node")) as process,
        Client(domain) as client,
    ):
        client.wait(lambda: "flow3r" in client.node.get_node_names(), 30.0, "the node")
        assert process.stop() in (0, 1)
        assert "Traceback" not in process.output()


def test_the_program_of_the_command_line_takes_the_shipped_parameters():
    domain = fresh_domain()
    command = ("-m", "flow3r_ros.cli.main", "node")
    with (
        NodeProcess(
            domain, "--params-file", str(ROOT / "config" / "node.yaml"), program=command
        ) as process,
        Client(domain) as client,
    ):
        if not (ROOT / "models" / "flow3r_nano" / "model.safetensors").exists():
            pytest.skip("the bundled model is not there yet")
        client.listen("~/status", "~/flow")
        client.connect_camera()
        client.play(2, lockstep="")
        client.wait_for("~/status", 1, 30.0)
        assert client.received["~/status"][0].model == "flow3r_nano"
        client.wait(
            lambda: client.play(1, period=0.1) and client.count("~/flow"), 30.0, "factored flow"
        )
        flow = client.received["~/flow"][0]
        vectors = np.array(flow.flow).reshape(flow.height, flow.width, 2)
        assert len(flow.covisibility) == flow.height * flow.width
        assert np.median(vectors[..., 0]) < 0, "the camera pans to the right"
        assert stamp_of(flow) < flow.target_stamp.sec * 10**9 + flow.target_stamp.nanosec
        assert process.stop() == 0
