"""Images of either transport and quality of service, and what does not fit together, said in
words."""

from __future__ import annotations

import cv2
import pytest

from flow3r_ros.ros.messages import make
from flow3r_ros.wire.transforms import header_of
from test.ros.harness import BEST_EFFORT, LATCHED, RELIABLE, Client
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import picture


@pytest.mark.parametrize("quality", ["reliable", "best_effort"])
def test_compressed_images_of_either_reliability(quality):
    domain = fresh_domain()
    qos = RELIABLE if quality == "reliable" else BEST_EFFORT
    with (
        NodeProcess(domain, "-p", "node.image_transport:=compressed") as process,
        Client(domain) as client,
    ):
        client.listen("~/status")
        images = client.publisher("sensor_msgs/msg/CompressedImage", "image/compressed", qos)
        infos = client.publisher("sensor_msgs/msg/CameraInfo", "camera_info")
        client.wait(
            lambda: (
                client.listened("image/compressed", qos)
                and client.listened("camera_info", RELIABLE)
            ),
            20.0,
            "subscriptions",
        )
        for index in range(100):
            infos.publish(client.info())
            jpeg = cv2.imencode(".jpg", picture(index)[..., ::-1])[1].reshape(-1)
            if index % 3 == 2:
                jpeg = jpeg[: len(jpeg) // 2]
            header = header_of(make, client.next_stamp(), "cam_optical")
            images.publish(
                make("sensor_msgs/msg/CompressedImage", header=header, format="jpeg", data=jpeg)
            )
            if client.within(
                0.1,
                lambda: (
                    client.count("~/status") >= 4 and client.drops().get("corrupt_image", 0) >= 2
                ),
            ):
                break
        assert client.count("~/status") >= 4
        assert client.drops()["corrupt_image"] >= 2
        assert process.output().count("(corrupt_image)") == 1


def test_raw_images_of_a_best_effort_camera():
    domain = fresh_domain()
    with NodeProcess(domain), Client(domain) as client:
        client.listen("~/status")
        client.connect_camera(BEST_EFFORT)
        client.warm_up("~/status")
        (info,) = client.node.get_subscriptions_info_by_topic("/image")
        assert info.qos_profile.reliability is BEST_EFFORT.reliability
        assert client.of("~/status", client.play(1, lockstep="~/status"))


def test_a_subscriber_that_asks_for_too_much_is_told_so_in_words_once():
    domain = fresh_domain()
    with NodeProcess(domain) as process, Client(domain) as client:
        client.listen("~/odometry", qos=LATCHED)
        client.wait(
            lambda: (
                "a subscriber of ~/odometry asks for more than we offer (durability"
                in process.output()
            ),
            20.0,
            "the sentence",
        )
        client.listen("~/odometry", qos=LATCHED)
        client.listen("~/status")
        client.connect_camera()
        client.warm_up("~/status")
        assert process.output().count("asks for more than we offer") == 1


def test_an_impossible_quality_of_service_is_said_in_words():
    domain = fresh_domain()
    with NodeProcess(domain, "-p", "node.image_qos:=reliable") as process, Client(domain) as client:
        client.publisher("sensor_msgs/msg/Image", "image", BEST_EFFORT)
        client.wait(
            lambda: "set the same reliability on both sides" in process.output(),
            20.0,
            "the sentence about the mismatch",
        )
