"""Estimates become the contract's messages: axes, edges, covariance, LOST; rclpy and rosbags
serialize them to the same bytes."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make, ros2_types
from flow3r_ros.config import NodeSettings, ObstacleSettings
from flow3r_ros.geometry.lie import invert, rigid, se3_exp, so3_exp, so3_log
from flow3r_ros.types import Camera, Estimate, Frame, PoseSource, ScaleState, Seam, TrackingState
from flow3r_ros.wire.flow import KeyframeFlow, factored_flow
from flow3r_ros.wire.outputs import LOST_VARIANCE, TOPICS, Outputs, RunStatus
from flow3r_ros.wire.transforms import matrix_of_pose

HEIGHT, WIDTH = 12, 16
APART = {"~/map", "~/flow"}
"""topics of a map and of a pair of keyframes"""
CAMERA = Camera(WIDTH, HEIGHT, 14.0, 15.0, 7.4, 5.6)
TURNED = rigid(so3_exp([0.0, 0.3, 0.0]), [1.0, 0.0, 2.0])
IN_MAP = RunStatus(loops_closed=3, map_to_odom_age_s=1.5, T_map_odom=TURNED)
STATUS = RunStatus(7, 5, {"busy": 2, "bad_step": 1}, 3, 1.5, 2.5, "nano", "ab" * 32, "Apache-2.0")
E_BASE_OPTICAL = rigid(np.array([[0.0, 0, 1], [-1, 0, 0], [0, -1, 0]]), (0.3, 0.1, 0.6))


def estimate(index: int = 0, T: np.ndarray | None = None, **changes: Any) -> Estimate:
    random = np.random.default_rng(index)
    depth = random.uniform(1, 5, (HEIGHT, WIDTH)).astype(np.float32)
    depth[2:4, 3:6] = np.nan
    spread = random.normal(size=(6, 6))
    made = Estimate(
        frame_id=index,
        stamp_ns=1_700_000_000_987_654_321 + index * 100_000_000,
        source_frame="cam_optical",
        T_odom_cam=np.eye(4) if T is None else T,
        covariance=spread @ spread.T * 1e-4,
        depth=depth,
        confidence=random.uniform(0, 1, (HEIGHT, WIDTH)).astype(np.float32),
        moving=random.random((HEIGHT, WIDTH)) < 0.1,
        rgb=random.integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8),
        camera=CAMERA,
        tracking_state=TrackingState.TRACKING,
        pose_source=PoseSource.TWO_VIEW,
        scale_state=ScaleState.ANCHORED,
        scale_sigma=0.04,
        seam=Seam(np.eye(4), 1.1, 0.9, 0.02, True),
        keyframe=True,
        window=(0, 3, index),
        segment=2,
        reason="blurred",
        twist=np.array([0.1, 0.2, 1.0, 0.0, -0.3, 0.05]),
        twist_covariance=spread.T @ spread * 1e-3,
        keyframes=7,
    )
    return replace(made, **changes)


def build(outputs: Outputs, made: Estimate, status: RunStatus = STATUS) -> dict[str, Any]:
    messages = outputs.build(made, TOPICS, status)
    messages["~/path"] = ros2_types().deserialize_cdr(messages["~/path"], TOPICS["~/path"])
    return messages


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


def test_cloud_is_the_depth_back_projected() -> None:
    made = estimate(0, se3_exp([0.5, 0.1, -0.2, 0.1, 0.2, 0.3]))
    dtype = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")]
    cloud = build(Outputs(make, NodeSettings(), keep=lambda kept: ~kept.moving), made)["~/points"]
    points = np.frombuffer(cloud.data, dtype).reshape(HEIGHT, WIDTH)
    keep = ~made.moving & np.isfinite(made.depth)
    expected = made.points()
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(points[name][keep], expected[keep][:, axis])
        assert np.isnan(points[name][~keep]).all()
    color = points["rgb"][0, 0]
    assert (color >> 16, color >> 8 & 255, color & 255) == tuple(made.rgb[0, 0])
    moved = build(Outputs(make, NodeSettings(points_frame="odom")), made)["~/points"]
    assert moved.header.frame_id == "odom"
    points = np.frombuffer(moved.data, dtype).reshape(HEIGHT, WIDTH)
    world = expected @ made.T_odom_cam[:3, :3].T + made.T_odom_cam[:3, 3]
    np.testing.assert_allclose(points["x"], world[..., 2], rtol=1e-4, atol=1e-5)


def test_map_is_rare_and_in_odom() -> None:
    outputs = Outputs(make, NodeSettings(map_period=2.0))
    assert outputs.map_due(5)
    message = outputs.map_message(
        5, np.array([[0, 0, 1]], np.float32), np.zeros((1, 3), np.uint8), np.ones(1, np.float32)
    )
    assert np.frombuffer(message.data, "<f4")[:3] == pytest.approx((1.0, 0.0, 0.0))
    assert not outputs.map_due(1_000_000_000)
    assert outputs.map_due(2_000_000_005)
    assert outputs.map_due(0), "time ran backwards"
    empty = outputs.map_message(
        9, np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32)
    )
    assert empty.width == 0


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


def points_of(cloud: Any) -> np.ndarray:
    """x y z `[n, 3]` of a cloud."""
    return np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)[:, :3]


def test_obstacles_are_what_the_base_would_run_into() -> None:
    limits = ObstacleSettings(min_height=0.2, max_height=1.5, max_range=3.0, min_confidence=0.4)
    settings = NodeSettings(base_frame="base")
    outputs = Outputs(make, settings, T_base_optical=E_BASE_OPTICAL, obstacles=limits)
    seen = estimate(3)
    cloud = build(outputs, seen)["~/obstacles"]
    assert cloud.header.frame_id == "base"
    everything = seen.points().reshape(-1, 3) @ E_BASE_OPTICAL[:3, :3].T + E_BASE_OPTICAL[:3, 3]
    wanted = everything[
        (seen.confidence.reshape(-1) >= 0.4)
        & (everything[:, 2] >= 0.2)
        & (everything[:, 2] <= 1.5)
        & (np.hypot(everything[:, 0], everything[:, 1]) <= 3.0)
    ]
    assert 5 < len(wanted) < len(everything) / 2
    np.testing.assert_allclose(points_of(cloud), wanted, rtol=1e-5, atol=1e-5)
    relative = replace(seen, scale_state=ScaleState.RELATIVE)
    assert "~/obstacles" not in build(outputs, relative), "a unit that is no metre"


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
