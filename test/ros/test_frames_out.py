"""Names and frames of what the node publishes: namespace, remaps, tf, odometry."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flow3r_ros.config import Config
from flow3r_ros.geometry.frames import odom_from_optical
from flow3r_ros.geometry.lie import so3_exp
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.ros.messages import make
from flow3r_ros.types import Frame
from flow3r_ros.wire.transforms import matrix_of_pose, tf_message
from test.ros.consumer import check_as_a_filter_would
from test.ros.harness import EPOCH_NS, LATCHED, PERIOD_NS, Client, stamp_of
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.plane_node import WallPredictor
from test.ros.scene import picture, wall_camera


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
