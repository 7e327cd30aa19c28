"""A bag played over DDS into the node, slowly enough that nothing drops, gives the odometry of its
replay, to the last bit."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("rclpy", reason="rclpy is not installed")

from rclpy.duration import Duration
from rclpy.serialization import serialize_message
from rosbags.rosbag2 import Reader

from flow3r_ros.bags.types import make, ros2_types
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.config import Config
from flow3r_ros.datasets.sources import BagSource
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.bag_recorder import bag_topic
from flow3r_ros.offline.replay import replay
from flow3r_ros.wire import diagnostics
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.outputs import TOPICS
from flow3r_ros.wire.transforms import header_of
from test.ros.harness import Client
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.plane_node import WallPredictor
from test.ros.scene import picture, wall_camera

FRAMES = 15
COMPARED = (
    "~/odometry",
    "/tf",
    "~/path",
    "~/depth/image",
    "~/depth/camera_info",
    "~/confidence",
    "~/moving_mask",
    "~/points",
)


def wall_bag(folder: Path) -> Path:
    with BagWriter(folder) as writer:
        writer.add("/camera_info", "sensor_msgs/msg/CameraInfo")
        writer.add("/image", "sensor_msgs/msg/Image")
        for index in range(FRAMES):
            ns = 1_700_000_000_000_000_001 + index * 100_000_003
            header = header_of(make, ns, "cam_optical")
            writer.write("/camera_info", ns, info_from_camera(make, header, wall_camera()))
            writer.write("/image", ns, rgb_image(make, header, picture(index)))
    return folder


def play_live(bag: Path) -> tuple[dict[str, list[bytes]], list[str]]:
    """What the node publishes while the bag's own bytes are sent to it, one image after the answer
    to the last; and the keys of its diagnostics.

    Pictures played before, until every topic has arrived, show that DDS has matched everybody; a
    reset makes them forgotten.
    """
    domain = fresh_domain()
    with Client(domain) as client, NodeProcess(domain):
        client.listen(*COMPARED, "/diagnostics")
        client.connect_camera()
        client.warm_up(*COMPARED)
        last = client.play(1, lockstep="~/odometry")
        for topic in COMPARED:
            client.of(topic, last)
        assert client.call("std_srvs/srv/Trigger", "~/reset").success
        for topic in COMPARED:
            client.received[topic].clear()
        infos = client.publisher("sensor_msgs/msg/CameraInfo", "camera_info")
        with Reader(bag) as reader:
            for connection, _, data in reader.messages():
                if connection.topic == "/camera_info":
                    infos.publish(bytes(data))
                    assert infos.wait_for_all_acked(Duration(seconds=80))
                    continue
                before = client.count("~/odometry")
                client.publisher("sensor_msgs/msg/Image", "image").publish(bytes(data))
                client.wait(
                    lambda before=before: client.count("~/odometry") > before,
                    15.0,
                    "an answer to an image",
                )
        for topic in COMPARED:
            client.wait_for(topic, FRAMES)
        received = {topic: list(client.received[topic]) for topic in COMPARED}
        keys = [pair.key for pair in client.wait_for("/diagnostics")[-1].status[0].values]
    return {
        topic: [canonical(serialize_message(message), TOPICS[topic]) for message in received[topic]]
        for topic in COMPARED
    }, keys


def canonical(data: bytes, type_name: str) -> bytes:
    """Alignment gaps, which Fast CDR leaves as they were in memory, cleared."""
    return bytes(
        ros2_types().serialize_cdr(ros2_types().deserialize_cdr(data, type_name), type_name)
    )


def test_live_equals_replay(tmp_path: Path) -> None:
    bag = wall_bag(tmp_path / "bag")
    live, keys = play_live(bag)
    with BagSource(bag) as source, Engine(WallPredictor(0.0), Config()) as engine:
        summary = replay(source, engine, tmp_path / "out", quiet=True)
    assert summary["frames_estimated"] == FRAMES
    replayed: dict[str, list[bytes]] = {}
    with Reader(tmp_path / "out") as reader:
        for connection, _, data in reader.messages():
            replayed.setdefault(connection.topic, []).append(bytes(data))
    for topic in COMPARED:
        assert live[topic] == replayed[bag_topic(topic)], topic
    said = ros2_types().deserialize_cdr(replayed["/diagnostics"][-1], diagnostics.TYPE)
    assert [pair.key for pair in said.status[0].values] == keys
