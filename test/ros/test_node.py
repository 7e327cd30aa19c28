"""The contracts' table over real DDS: topics, types, frames, stamps, QoS, and agreement of the
outputs with each other."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest
from rclpy.qos import DurabilityPolicy, ReliabilityPolicy

from flow3r_ros.wire.outputs import TOPICS
from flow3r_ros.wire.transforms import matrix_of_pose
from test.ros.harness import LATCHED, Client, stamp_of
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import DEPTH, HEIGHT, WIDTH

FRAMES = 8
PER_FRAME = (
    "~/odometry",
    "~/path",
    "~/depth/image",
    "~/depth/camera_info",
    "~/confidence",
    "~/moving_mask",
    "~/points",
    "~/status",
    "/tf",
)


@pytest.fixture(scope="module")
def session() -> Iterator[tuple[Client, list[int]]]:
    """A node that has seen eight pictures with everything subscribed, after a warm-up; and the
    stamps of the eight."""
    domain = fresh_domain()
    with NodeProcess(domain) as process, Client(domain) as client:
        client.listen(*PER_FRAME, "/diagnostics")
        client.listen("~/map", qos=LATCHED)
        client.connect_camera()
        client.warm_up(*PER_FRAME)
        stamps = client.play(FRAMES, lockstep="~/status")
        for topic in PER_FRAME:
            client.received[topic] = client.of(topic, stamps)
        yield client, stamps
        assert process.process.poll() is None


def test_every_output_carries_the_stamp_of_its_image(session):
    client, stamps = session
    for topic in PER_FRAME:
        assert [stamp_of(message) for message in client.received[topic]] == stamps, topic


def test_frames_follow_the_conventions(session):
    client, _ = session
    optical = (
        "~/depth/image",
        "~/depth/camera_info",
        "~/confidence",
        "~/moving_mask",
        "~/points",
        "~/status",
    )
    assert {client.received[topic][0].header.frame_id for topic in optical} == {"cam_optical"}
    odometry, edge = client.received["~/odometry"][0], client.received["/tf"][0].transforms[0]
    assert (odometry.header.frame_id, odometry.child_frame_id) == ("odom", "cam_optical")
    assert (edge.header.frame_id, edge.child_frame_id) == ("odom", "cam_optical")
    assert client.received["~/path"][0].header.frame_id == "odom"
    assert edge.transform.translation.x == odometry.pose.pose.position.x


def test_types_and_quality_of_service_are_those_of_the_contract(session):
    client, _ = session
    for topic, type_name in {
        **TOPICS,
        "/diagnostics": "diagnostic_msgs/msg/DiagnosticArray",
    }.items():
        infos = client.node.get_publishers_info_by_topic(client.name(topic))
        assert [info.topic_type for info in infos] == [type_name], topic
        assert infos[0].qos_profile.reliability is ReliabilityPolicy.RELIABLE, topic
        latched = infos[0].qos_profile.durability is DurabilityPolicy.TRANSIENT_LOCAL
        assert latched == (topic == "~/map"), topic


def test_depth_and_its_camera_info_back_project_onto_the_cloud(session):
    client, _ = session
    depth, info, cloud = (
        client.received[topic][-1] for topic in ("~/depth/image", "~/depth/camera_info", "~/points")
    )
    assert depth.encoding == "32FC1"
    z = np.frombuffer(depth.data, np.float32).reshape(depth.height, depth.width)
    values = np.frombuffer(cloud.data, np.float32).reshape(
        cloud.height, cloud.width, cloud.point_step // 4
    )
    columns, rows = np.meshgrid(
        np.arange(info.width, dtype=np.float32), np.arange(info.height, dtype=np.float32)
    )
    fx, fy, cx, cy = (np.float32(value) for value in (info.k[0], info.k[4], info.k[2], info.k[5]))
    expected = np.stack([z * ((columns - cx) / fx), z * ((rows - cy) / fy), z], axis=-1)
    kept = np.isfinite(values[..., 2])
    assert kept.mean() > 0.5
    np.testing.assert_array_equal(values[..., :3][kept], expected[kept])


def test_the_wall_is_where_it_is_and_the_camera_moves_along_it(session):
    client, _ = session
    z = np.frombuffer(client.received["~/depth/image"][-1].data, np.float32)
    poses = [matrix_of_pose(message.pose.pose) for message in client.received["~/odometry"]]
    scale = np.nanmedian(z) / DEPTH
    step = np.array([b[:3, 3] - a[:3, 3] for a, b in pairwise(poses)]) / scale
    # the camera pans to its right, which is -y of the odom frame (REP-103)
    assert np.median(step[:, 1]) == pytest.approx(-DEPTH * 4 / 300.0, rel=0.1)
    assert abs(np.median(step[:, 0])) < 0.1 * abs(np.median(step[:, 1]))


def test_status_accounts_for_every_image(session):
    client, _ = session
    status = client.received["~/status"][-1]
    dropped = dict(zip(status.drop_reasons, status.drop_counts, strict=True))
    assert status.frames_received == status.frames_estimated + sum(dropped.values())
    assert status.model == "wall"
    assert status.latency_ms > 0
    assert status.state == status.STATE_TRACKING


def test_confidence_mask_and_map(session):
    client, _ = session
    confidence = np.frombuffer(client.received["~/confidence"][-1].data, np.float32)
    assert 0 <= confidence.min() <= confidence.max() <= 1
    mask = client.received["~/moving_mask"][-1]
    assert mask.encoding == "mono8"
    assert set(np.unique(np.frombuffer(mask.data, np.uint8))) <= {0, 255}
    grown = client.wait_for("~/map")[-1]
    assert grown.header.frame_id == "odom"
    assert grown.width * grown.height > 100
    assert client.received["~/depth/image"][-1].width == min(WIDTH, 336)
    assert client.received["~/depth/image"][-1].height == HEIGHT * min(WIDTH, 336) // WIDTH


def test_diagnostics_tell_rates_model_and_licence(session):
    client, _ = session
    values = {pair.key: pair.value for pair in client.wait_for("/diagnostics")[-1].status[0].values}
    for key in (
        "rate in [Hz]",
        "rate out [Hz]",
        "latency p50 [ms]",
        "latency p95 [ms]",
        "result age [ms]",
        "GPU memory [MB]",
    ):
        float(values[key])
    assert values["model"] == "wall"
    assert values["licence of the weights"] == "Apache-2.0"
    assert values["scale state"] == "relative"
