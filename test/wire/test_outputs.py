"""Estimates become the contract's messages: axes, edges, covariance, LOST; rclpy and rosbags
serialize them to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make, ros2_types
from flow3r_ros.config import NodeSettings
from flow3r_ros.geometry.lie import invert, rigid, se3_exp, so3_exp, so3_log
from flow3r_ros.types import Frame, ScaleState, TrackingState
from flow3r_ros.wire.flow import KeyframeFlow, factored_flow
from flow3r_ros.wire.outputs import LOST_VARIANCE, TOPICS, Outputs
from flow3r_ros.wire.transforms import matrix_of_pose
from test.wire.estimates import (
    APART,
    E_BASE_OPTICAL,
    IN_MAP,
    STATUS,
    TURNED,
    build,
    estimate,
)


def test_every_topic_has_stamp_and_frame_of_the_source() -> None:
    outputs = Outputs(make, NodeSettings())
    messages = build(outputs, estimate(1))
    assert set(messages) == set(TOPICS) - APART - {"~/obstacles", "~/pose"}  # no base, no map
    for topic, message in messages.items():
        header = message.transforms[0].header if topic == "/tf" else message.header
        assert header.stamp.sec * 10**9 + header.stamp.nanosec == estimate(1).stamp_ns, topic
        assert header.frame_id == (
            "odom" if topic in ("/tf", "~/odometry", "~/path") else "cam_optical"
        ), topic
        assert type(message).__name__.endswith(TOPICS[topic].split("/")[-1])
    status = messages["~/status"]
    assert (status.state, status.scale_state, status.pose_source) == (
        status.STATE_TRACKING,
        status.SCALE_ANCHORED,
        "two_view",
    )
    assert (status.segment, status.reason, status.keyframes) == (2, "blurred", 7)
    assert status.loops_closed == 0
    assert np.isnan(status.map_to_odom_age)
    assert list(status.drop_reasons) == ["bad_step", "busy"]
    assert list(status.drop_counts) == [1, 2]


def test_forward_motion_is_x_in_odom() -> None:
    messages = build(Outputs(make, NodeSettings()), estimate(0, rigid(np.eye(3), (0.0, 0.0, 2.0))))
    position = messages["~/odometry"].pose.pose.position
    assert (position.x, position.y, position.z) == pytest.approx((2.0, 0.0, 0.0))
    edge = messages["/tf"].transforms[0]
    assert (edge.header.frame_id, edge.child_frame_id) == ("odom", "cam_optical")


def test_extrinsics_move_the_base_and_carry_the_lever_arm() -> None:
    outputs = Outputs(make, NodeSettings(base_frame="base"), T_base_optical=E_BASE_OPTICAL)
    first = build(outputs, estimate(0))
    np.testing.assert_allclose(matrix_of_pose(first["~/odometry"].pose.pose), np.eye(4), atol=1e-12)
    T = invert(E_BASE_OPTICAL) @ rigid(so3_exp([0, 0, 0.4]), (1.0, 0.5, 0.0)) @ E_BASE_OPTICAL
    message = build(outputs, estimate(1, T))["~/odometry"]
    assert message.child_frame_id == "base"
    np.testing.assert_allclose(
        matrix_of_pose(message.pose.pose)[:3, 3], (1.0, 0.5, 0.0), atol=1e-12
    )
    # the covariance of the base equals that of samples of the camera's pose
    random = np.random.default_rng(0)
    covariance = estimate(1).covariance
    errors = random.multivariate_normal(np.zeros(6), covariance * 1e-2, 4000)
    moved = []
    for error in errors:
        sample = T.copy()
        sample[:3, :3] = so3_exp(error[3:]) @ T[:3, :3]
        sample[:3, 3] += error[:3]
        moved.append((E_BASE_OPTICAL @ sample @ invert(E_BASE_OPTICAL))[:3, 3])
    sampled = np.cov(np.array(moved).T) * 1e2
    np.testing.assert_allclose(
        message.pose.covariance.reshape(6, 6)[:3, :3], sampled, rtol=0.15, atol=0.06 * sampled.max()
    )


def test_inverted_and_switched_off_edge() -> None:
    T = se3_exp([0.1, 0.2, 0.3, 0.1, -0.2, 0.3])
    plain = build(Outputs(make, NodeSettings()), estimate(0, T))["/tf"].transforms[0]
    inverted = build(Outputs(make, NodeSettings(invert_tf=True)), estimate(0, T))["/tf"].transforms[
        0
    ]
    assert (inverted.header.frame_id, inverted.child_frame_id) == (
        plain.child_frame_id,
        plain.header.frame_id,
    )
    forth, back = plain.transform, inverted.transform
    pair = [
        make(
            "geometry_msgs/msg/Pose",
            position=make(
                "geometry_msgs/msg/Point", x=t.translation.x, y=t.translation.y, z=t.translation.z
            ),
            orientation=t.rotation,
        )
        for t in (forth, back)
    ]
    np.testing.assert_allclose(
        matrix_of_pose(pair[0]) @ matrix_of_pose(pair[1]), np.eye(4), atol=1e-12
    )
    assert "/tf" not in build(Outputs(make, NodeSettings(publish_tf=False)), estimate())


def test_lost_says_so_and_claims_nothing() -> None:
    outputs = Outputs(make, NodeSettings())
    build(outputs, estimate(0))
    messages = build(outputs, estimate(1, tracking_state=TrackingState.LOST))
    assert "/tf" not in messages
    assert "~/points" not in messages
    assert np.diag(messages["~/odometry"].pose.covariance.reshape(6, 6)).min() >= LOST_VARIANCE
    assert len(messages["~/path"].poses) == 1
    assert messages["~/status"].state == messages["~/status"].STATE_LOST
    assert messages["~/odometry"].twist.covariance[0] >= LOST_VARIANCE
    assert messages["~/odometry"].twist.twist.linear.z == 0.0
    searching = build(outputs, estimate(2, tracking_state=TrackingState.RELOCALIZING))
    assert "/tf" not in searching
    assert searching["~/status"].state == searching["~/status"].STATE_RELOCALIZING == 4


def test_twist_is_that_of_the_child_in_its_own_axes() -> None:
    made = estimate(1)
    bare = build(Outputs(make, NodeSettings()), made)["~/odometry"].twist
    assert (bare.twist.linear.x, bare.twist.linear.z, bare.twist.angular.y) == (0.1, 1.0, -0.3)
    np.testing.assert_array_equal(bare.covariance.reshape(6, 6), made.twist_covariance)
    outputs = Outputs(make, NodeSettings(base_frame="base"), T_base_optical=E_BASE_OPTICAL)
    carried = build(outputs, made)["~/odometry"].twist
    # the base moves rigidly with the camera: the same second of motion, seen from the base
    seconds = 1e-6
    T_base = E_BASE_OPTICAL @ se3_exp(seconds * made.twist) @ invert(E_BASE_OPTICAL)
    linear, angular = T_base[:3, 3] / seconds, so3_log(T_base[:3, :3]) / seconds
    twist = carried.twist
    assert (twist.linear.x, twist.linear.y, twist.linear.z) == pytest.approx(linear, abs=1e-5)
    assert (twist.angular.x, twist.angular.y, twist.angular.z) == pytest.approx(angular, abs=1e-5)
    random = np.random.default_rng(0)
    samples = random.multivariate_normal(made.twist, made.twist_covariance, 20_000)
    moved = [
        np.r_[E[:3] + np.cross(E_BASE_OPTICAL[:3, 3], E[3:]), E[3:]]
        for E in samples.reshape(-1, 2, 3).dot(E_BASE_OPTICAL[:3, :3].T).reshape(-1, 6)
    ]
    sampled = np.cov(np.array(moved).T)
    np.testing.assert_allclose(
        carried.covariance.reshape(6, 6), sampled, atol=0.05 * sampled.diagonal().max()
    )


def test_a_twist_that_nobody_measured_is_not_trusted() -> None:
    unknown = estimate(1, twist=np.zeros(6), twist_covariance=np.zeros((6, 6)))
    message = build(Outputs(make, NodeSettings()), unknown)["~/odometry"].twist
    assert np.diag(message.covariance.reshape(6, 6)).min() >= LOST_VARIANCE


def test_path_is_bounded_and_reset_forgets() -> None:
    outputs = Outputs(make, NodeSettings(max_path=3))
    for index in range(6):
        assert list(outputs.build(estimate(index), {"~/path"}, STATUS)) == ["~/path"]
    poses = build(outputs, estimate(6))["~/path"].poses
    assert [pose.header.stamp.nanosec for pose in poses] == [
        estimate(i).stamp_ns % 10**9 for i in (4, 5, 6)
    ]
    outputs.reset()
    assert len(build(outputs, estimate(7))["~/path"].poses) == 1
    assert len(build(outputs, estimate(8))["~/path"].poses) == 2
    assert len(build(outputs, estimate(9, segment=3))["~/path"].poses) == 1, "another origin"


def _as_rclpy(message: Any, topic: str) -> Any:
    """The path comes as bytes; what rclpy reads in them must serialize to them again."""
    from rclpy.serialization import deserialize_message

    from flow3r_ros.ros.messages import class_of

    if topic != "~/path":
        return message
    return deserialize_message(
        bytes(ros2_types().serialize_cdr(message, TOPICS[topic])), class_of(TOPICS[topic])
    )


def test_rclpy_and_rosbags_serialize_the_same_bytes() -> None:
    serialization = pytest.importorskip("rclpy.serialization", reason="rclpy is not installed")
    from flow3r_ros.ros.messages import make as make_rclpy

    built = {}
    for name, maker in (("rclpy", make_rclpy), ("rosbags", make)):
        outputs = Outputs(
            maker, NodeSettings(base_frame="base"), lambda kept: ~kept.moving, E_BASE_OPTICAL
        )
        build(outputs, estimate(0))
        built[name] = build(outputs, estimate(1, se3_exp([0.5, 0.1, -0.2, 0.1, 0.2, 0.3])), IN_MAP)
        made = estimate(1)
        built[name]["~/map"] = outputs.map_message(
            7, made.points()[0], made.rgb[0], made.confidence[0]
        )
        frames = [Frame(id_, 10**18 + id_, made.rgb, made.camera, "cam") for id_ in (1, 2)]
        shift = np.ones((*made.depth.shape, 2), np.float32)
        built[name]["~/flow"] = factored_flow(maker, KeyframeFlow(*frames, shift, -shift), "")
    assert set(built["rclpy"]) == set(TOPICS)
    for topic, type_name in TOPICS.items():
        live = serialization.serialize_message(_as_rclpy(built["rclpy"][topic], topic))
        replayed = bytes(ros2_types().serialize_cdr(built["rosbags"][topic], type_name))
        assert len(live) == len(replayed), topic
        # Fast CDR leaves whatever was in memory in its alignment gaps: compare after a round trip
        # that clears them
        canonical = ros2_types().serialize_cdr(
            ros2_types().deserialize_cdr(live, type_name), type_name
        )
        assert bytes(canonical) == replayed, topic


def test_an_edge_carried_ahead_is_where_the_velocity_leads() -> None:
    T = rigid(so3_exp([0.1, 0.2, 0.3]), (1.0, 2.0, 3.0))
    now = estimate(1, T)
    later = estimate(1, T @ se3_exp(0.1 * now.twist), stamp_ns=now.stamp_ns + 100_000_000)
    (ahead,) = build(Outputs(make, NodeSettings(tf_predict=0.1)), now)["/tf"].transforms
    (expected,) = build(Outputs(make, NodeSettings()), later)["/tf"].transforms
    assert ahead == expected


def test_metres_are_known_as_well_as_their_scale_and_other_units_exactly() -> None:
    """Many runs whose only error is the scale: the covariance must be theirs."""
    outputs = Outputs(make, NodeSettings(base_frame="base"), T_base_optical=E_BASE_OPTICAL)
    quiet = dict(covariance=np.eye(6) * 1e-12, twist_covariance=np.eye(6) * 1e-12)
    T = rigid(so3_exp([0.1, -0.4, 0.2]), (2.0, -1.0, 5.0))
    true = estimate(1, T, scale_state=ScaleState.METRIC, scale_sigma=0.1, **quiet)
    said = build(outputs, true)["~/odometry"]
    wrong = rigid(T[:3, :3], 1.1 * T[:3, 3])
    one_sigma = estimate(2, wrong, twist=true.twist * [1.1, 1.1, 1.1, 1, 1, 1], **quiet)
    off = build(outputs, one_sigma)["~/odometry"]
    way = matrix_of_pose(off.pose.pose)[:3, 3] - matrix_of_pose(said.pose.pose)[:3, 3]
    np.testing.assert_allclose(
        np.array(said.pose.covariance).reshape(6, 6)[:3, :3], np.outer(way, way), atol=1e-9
    )
    pair = [message.twist.twist.linear for message in (off, said)]
    faster = np.array([getattr(pair[0], axis) - getattr(pair[1], axis) for axis in "xyz"])
    np.testing.assert_allclose(
        np.array(said.twist.covariance).reshape(6, 6)[:3, :3], np.outer(faster, faster), atol=1e-9
    )
    anchored = build(outputs, replace(true, scale_state=ScaleState.ANCHORED))["~/odometry"]
    assert np.max(anchored.pose.covariance) < 1e-9


@pytest.mark.parametrize("extrinsics", [None, E_BASE_OPTICAL])
def test_with_a_map_there_are_two_edges_that_lead_to_the_pose_in_it(
    extrinsics: np.ndarray | None,
) -> None:
    settings = NodeSettings(base_frame="base" if extrinsics is not None else "", map_frame="site")
    T = se3_exp([0.5, 0.1, -0.2, 0.1, 0.2, 0.3])
    messages = build(Outputs(make, settings, None, extrinsics), estimate(1, T), IN_MAP)
    first, second = messages["/tf"].transforms
    assert (first.header.frame_id, first.child_frame_id) == ("site", "odom")
    assert second.header.frame_id == "odom"
    pose = matrix_of_pose(messages["~/pose"].pose.pose)
    assert messages["~/pose"].header.frame_id == "site"
    # the map's edge moves the pose as the correction moves the optical world
    elsewhere = build(Outputs(make, settings, None, extrinsics), estimate(1, TURNED @ T))
    assert np.allclose(pose, matrix_of_pose(elsewhere["~/odometry"].pose.pose))
    silent = settings.model_copy(update={"publish_map_tf": False})
    alone = build(Outputs(make, silent, None, extrinsics), estimate(1, T), IN_MAP)
    assert len(alone["/tf"].transforms) == 1
    lost = estimate(1, T, tracking_state=TrackingState.LOST)
    left = Outputs(make, settings, None, extrinsics).build(lost, TOPICS, IN_MAP)
    assert [edge.child_frame_id for edge in left["/tf"].transforms] == ["odom"]
    assert "~/pose" not in left
