"""A mask that was published before the node came, and an inertial unit, over DDS."""

from __future__ import annotations

import numpy as np
from rclpy.duration import Duration

from flow3r_ros.geometry.frames import R_BODY_OPTICAL
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.ros.messages import make
from flow3r_ros.wire.images import mask_image
from flow3r_ros.wire.transforms import header_of, matrix_of_pose, tf_message
from test.ros.harness import LATCHED, RELIABLE, Client
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import HEIGHT, WIDTH

UP = np.array([0.0, 0.0, 1.0])
PITCH = so3_exp([0.0, 0.25, 0.0])
"""of the robot on its slope"""


def test_a_latched_mask_is_ignored_and_gravity_levels_odom() -> None:
    domain, hood = fresh_domain(), np.zeros((HEIGHT, WIDTH), np.bool_)
    hood[HEIGHT // 2 :] = True
    mounted = rigid(R_BODY_OPTICAL.T, np.array([0.1, 0.0, 0.2]))
    with Client(domain) as client:
        header = header_of(make, 1, "cam_optical")
        client.publisher("sensor_msgs/msg/Image", "mask", LATCHED).publish(
            mask_image(make, header, hood)
        )
        static = client.publisher("tf2_msgs/msg/TFMessage", "/tf_static", LATCHED)
        edges = [
            tf_message(make, 0, "base_link", child, T).transforms[0]
            for child, T in (("cam_optical", mounted), ("imu", np.eye(4)))
        ]
        static.publish(make("tf2_msgs/msg/TFMessage", transforms=edges))
        with NodeProcess(domain, "-p", "node.base_frame:=base_link") as process:
            client.listen("~/odometry", "~/depth/image")
            unit = client.publisher("sensor_msgs/msg/Imu", "imu")
            client.wait(lambda: client.listened("imu", RELIABLE), 20.0, "a subscription on imu")
            message = make("sensor_msgs/msg/Imu", header=header_of(make, 1, "imu"))
            felt = 9.81 * PITCH.T @ UP
            message.linear_acceleration.x, _, message.linear_acceleration.z = felt.tolist()
            for _ in range(20):
                unit.publish(message)
            assert unit.wait_for_all_acked(Duration(seconds=60))
            client.connect_camera()
            client.warm_up("~/odometry", "~/depth/image")
            first = matrix_of_pose(client.received["~/odometry"][0].pose.pose)
            np.testing.assert_allclose(first[:3, :3], PITCH, atol=0.05)
            image = client.of("~/depth/image", client.play(1))[-1]
            depth = np.frombuffer(bytes(image.data), np.float32).reshape(image.height, image.width)
            middle = image.height // 2
            assert not np.isfinite(depth[middle + 2 :]).any(), process.output()
            assert np.isfinite(depth[: middle - 2]).mean() > 0.5
