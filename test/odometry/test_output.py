"""One scale on everything that leaves, and honest repeats."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.config import load_config
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.odometry.output import UNVERIFIED_CONFIDENCE, Output, Settled
from flow3r_ros.odometry.uncertainty import lost
from flow3r_ros.types import PoseSource, TrackingState
from test.odometry.plane import SCENE, depth_at, seen_at


def settled(index: int, **changes: object) -> Settled:
    view = seen_at(index)
    plain = Settled(
        view, SCENE.pose(index), np.eye(6), 0.1 * np.eye(6), np.full(6, 0.5), 0.1,
        depth_at(index, view).every_second(), np.zeros(view.gray[::2, ::2].shape, np.bool_),
        TrackingState.TRACKING,
        PoseSource.PNP, "",
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def thrice() -> Output:
    return Output(load_config(None, {"scale.source": "fixed", "scale.factor": 3.0}))


def test_pose_depth_covariance_and_twist_share_one_scale() -> None:
    plain = Output(load_config(None, {})).publish(settled(5), {}, True)
    large = thrice().publish(settled(5), {}, True)
    np.testing.assert_allclose(large.T_odom_cam[:3, 3], 3 * plain.T_odom_cam[:3, 3])
    np.testing.assert_allclose(large.T_odom_cam[:3, :3], plain.T_odom_cam[:3, :3])
    np.testing.assert_allclose(large.depth, 3 * plain.depth, rtol=1e-6)
    np.testing.assert_allclose(np.diag(large.covariance), [9.0] * 3 + [1.0] * 3)
    np.testing.assert_allclose(np.diag(large.step_covariance), [0.9] * 3 + [0.1] * 3)
    np.testing.assert_allclose(large.twist, [1.5] * 3 + [0.5] * 3)
    np.testing.assert_allclose(np.diag(large.twist_covariance), [90.0] * 3 + [10.0] * 3)


def test_depth_that_is_not_sure_enough_is_nan_in_image_and_cloud_alike() -> None:
    view = seen_at(5)
    known = depth_at(5, view)
    doubtful = known.sigma.copy()
    doubtful[:, : doubtful.shape[1] // 2] = (0.6 * known.inverse)[:, : doubtful.shape[1] // 2]
    half = settled(5, depth=DepthMap(known.inverse, doubtful).every_second())
    everything = Output(load_config(None, {"depth.min_confidence": 0.0})).publish(half, {}, True)
    masked = Output(load_config(None, {})).publish(half, {}, True)
    assert np.isfinite(everything.depth).all()
    assert np.array_equal(np.isfinite(masked.depth), masked.confidence >= 0.2)
    assert 0.4 < np.isfinite(masked.depth).mean() < 0.6
    assert not worth_showing(masked, 0.05)[~np.isfinite(masked.depth)].any()
    lost_frame = replace(half, state=TrackingState.LOST, covariance=lost(), velocity=None)
    assert np.isnan(Output(load_config(None, {})).publish(lost_frame, {}, True).depth).all()


def test_depth_that_nobody_asked_for_is_not_there_and_changes_nothing_else() -> None:
    output = thrice()
    asked, unasked = (output.publish(settled(5), {}, wanted) for wanted in (True, False))
    assert not unasked.has_depth
    assert np.isnan(unasked.depth).all()
    assert not unasked.confidence.any()
    assert np.array_equal(asked.T_odom_cam, unasked.T_odom_cam)
    keyframe = output.publish(settled(6, keyframe=True), {}, False)
    assert keyframe.has_depth
    assert np.isfinite(keyframe.depth).any(), "the map is made of keyframes"


def test_lost_is_huge_in_every_unit_and_depth_unverified() -> None:
    state = TrackingState.LOST
    lost_one = settled(5, state=state, covariance=lost(), velocity=None)
    estimate = thrice().publish(lost_one, {}, True)
    assert np.diag(estimate.covariance).min() >= 1e6
    assert not estimate.twist.any()
    sure = thrice().publish(settled(5), {}, True)
    np.testing.assert_allclose(estimate.confidence, UNVERIFIED_CONFIDENCE * sure.confidence)


def test_a_repeat_is_the_last_estimate_less_certain() -> None:
    output = thrice()
    assert output.repeat(seen_at(1), TrackingState.TRACKING, "", np.eye(6)) is None
    first = output.publish(settled(5), {}, True)
    again = output.repeat(seen_at(6), TrackingState.DEGRADED, "the picture repeats", np.eye(6))
    assert again is not None
    assert (again.frame_id, again.pose_source) == (6, PoseSource.REPEATED)
    assert np.array_equal(again.T_odom_cam, first.T_odom_cam)
    np.testing.assert_allclose(again.covariance - first.covariance, np.diag([9.0] * 3 + [1.0] * 3))
    assert not again.keyframe


def test_only_believed_keyframes_build_the_map() -> None:
    output = Output(load_config(None, {}))
    output.publish(settled(0), {}, True)
    output.publish(settled(1, keyframe=True, state=TrackingState.DEGRADED), {}, True)
    assert output.map is None
    output.publish(settled(2, keyframe=True), {}, True)
    assert output.map is not None
    assert len(output.map) > 0


def test_segments_states_and_sources_are_counted() -> None:
    output = Output(load_config(None, {}))
    output.publish(settled(0), {}, True)
    output.begin_segment("time jumped back", 0)
    assert output.repeat(seen_at(1), TrackingState.TRACKING, "", np.eye(6)) is None
    assert output.publish(settled(2), {}, True).segment == 1
    output.publish(settled(3), {}, True)
    assert [(s.first_frame, s.last_frame, s.reason) for s in output.segments] == [
        (0, 0, "start"), (2, 3, "time jumped back"),
    ]  # fmt: skip
    assert output.tracking_states == {"tracking": 3}
    assert output.pose_sources == {"pnp": 3}
    output.reset()
    assert output.segments == []
