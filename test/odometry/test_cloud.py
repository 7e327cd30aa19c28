"""The cloud leaves out what must not be shown, and the map keeps its bound by forgetting what it
has not seen for longest."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.odometry.cloud import (
    VoxelMap,
    alone,
    depth_edges,
    log_depth,
    seen_flatly,
    select_points,
)
from flow3r_ros.types import Camera, Estimate, Float64, PoseSource, ScaleState, TrackingState

CAMERA = Camera(40, 30, 40.0, 40.0, 19.5, 14.5)


def wall(depth: float = 2.0, pose: Float64 | None = None, shade: int = 100) -> Estimate:
    """A wall that fills the picture."""
    shape = (CAMERA.height, CAMERA.width)
    return Estimate(
        frame_id=0,
        stamp_ns=0,
        source_frame="camera",
        T_odom_cam=np.eye(4) if pose is None else pose,
        covariance=np.eye(6),
        depth=np.full(shape, depth, np.float32),
        confidence=np.full(shape, 0.8, np.float32),
        moving=np.zeros(shape, bool),
        rgb=np.full((*shape, 3), shade, np.uint8),
        camera=CAMERA,
        tracking_state=TrackingState.TRACKING,
        pose_source=PoseSource.NETWORK,
        scale_state=ScaleState.RELATIVE,
        scale_sigma=0.1,
    )


def shifted(x: float) -> Float64:
    pose = np.eye(4)
    pose[0, 3] = x
    return pose


def test_a_jump_of_depth_is_an_edge_on_both_sides_and_a_slope_is_not() -> None:
    depth = np.tile(np.where(np.arange(20) < 10, 1.0, 2.0).astype(np.float32), (9, 1))
    edges = depth_edges(log_depth(depth), 0.05)
    assert edges[4].nonzero()[0].tolist() == [9, 10]
    slope = np.tile(1.02 ** np.arange(20, dtype=np.float32), (9, 1))
    assert not depth_edges(log_depth(slope), 0.05).any()
    assert depth_edges(log_depth(slope), 0.03).any()


def test_unknown_depth_and_its_neighbours_are_edges() -> None:
    depth = np.full((9, 9), 3.0, np.float32)
    depth[4, 4] = np.nan
    depth[0, 0] = -1.0
    edges = depth_edges(log_depth(depth), 0.05)
    assert edges[3:6, 3:6].all()
    assert edges[0:2, 0:2].all()
    assert not edges[7:, 7:].any()


def test_a_few_pixels_in_front_of_a_wall_are_alone_and_a_thin_post_is_not() -> None:
    depth = np.full((30, 40), 4.0, np.float32)
    depth[10, 10] = depth[10, 11] = depth[11, 10] = 2.0
    depth[5:25, 30:32] = 2.0
    lonely = alone(log_depth(depth), CAMERA)
    assert lonely[10, 10]
    assert lonely[11, 10]
    assert not lonely[8:22, 30:32].any()
    assert not lonely[0:8, 0:28].any()
    depth[20, 20] = np.nan
    assert alone(log_depth(depth), CAMERA)[20, 20]


def test_a_floor_far_away_is_seen_flatly_and_a_wall_is_not() -> None:
    below_horizon = np.arange(30) + 1.0
    depth = np.tile((0.3 * 200 / below_horizon).astype(np.float32)[:, None], (1, 40))
    flat = seen_flatly(log_depth(depth), Camera(40, 30, 200.0, 200.0, 19.5, -1.0))
    assert flat[2:9].all(), "less than 9.5 of 200 pixels below the horizon"
    assert not flat[16:].any()
    assert not seen_flatly(log_depth(np.full((30, 40), 2.0, np.float32)), CAMERA).any()


def test_only_still_points_with_a_depth_off_the_edges_are_shown() -> None:
    estimate = wall()
    estimate.depth[:10] = np.nan
    estimate.moving[10:15, :5] = True
    estimate.depth[20:, 30:] = 5.0
    xyz, rgb, confidence = select_points(estimate, 0.05)
    keep = np.ones((30, 40), bool)
    keep[:11] = keep[10:15, :5] = False
    keep[19:21, 29:] = keep[19:, 29:31] = False
    assert len(xyz) == len(rgb) == len(confidence) == keep.sum()
    assert np.array_equal(xyz, estimate.points()[keep])


def test_points_of_one_voxel_become_their_mean() -> None:
    voxels = VoxelMap(voxel=100.0, max_voxels=1000)
    voxels.insert(wall(2.0, shade=100), 0.05)
    voxels.insert(wall(4.0, shade=200), 0.05)
    xyz, rgb, confidence = voxels.points()
    assert len(voxels) == 4, "the optical axis lies on a corner of four voxels"
    np.testing.assert_allclose(xyz[:, 2], 3.0, rtol=1e-5)
    assert (rgb == 150).all()
    np.testing.assert_allclose(confidence, 0.8, rtol=1e-5)


def test_points_lie_in_the_world_not_in_the_camera() -> None:
    voxels = VoxelMap(voxel=0.01, max_voxels=100_000)
    voxels.insert(wall(2.0, shifted(7.0)), 0.05)
    assert voxels.points()[0][:, 0].mean() == pytest.approx(7.0, abs=0.01)


def test_the_same_view_again_adds_nothing() -> None:
    voxels = VoxelMap(voxel=0.05, max_voxels=100_000)
    voxels.insert(wall(), 0.05)
    before, once = len(voxels), voxels.points()[0]
    for _ in range(120):
        voxels.insert(wall(), 0.05)
    assert len(voxels) == before
    np.testing.assert_allclose(voxels.points()[0], once, atol=1e-4)


def test_a_voxel_follows_what_is_seen_now() -> None:
    voxels = VoxelMap(voxel=100.0, max_voxels=1000)
    for _ in range(200):
        voxels.insert(wall(2.0), 0.05)
    for _ in range(400):
        voxels.insert(wall(6.0), 0.05)
    assert voxels.points()[0][:, 2].max() == pytest.approx(6.0, abs=0.1)


def test_the_map_is_bounded_and_forgets_the_least_recently_seen() -> None:
    voxels = VoxelMap(voxel=0.02, max_voxels=3000)
    for index in range(12):
        voxels.insert(wall(2.0, shifted(0.4 * index)), 0.05)
        assert len(voxels) <= 3000
    x = voxels.points()[0][:, 0]
    assert x.max() == pytest.approx(4.4 + 0.95, abs=0.1)
    assert x.min() > 0.0, "the first view's left side went first"
    assert not np.isnan(voxels.points()[0]).any()


def test_what_is_seen_again_is_not_forgotten() -> None:
    voxels = VoxelMap(voxel=0.02, max_voxels=4000)
    for index in range(12):
        voxels.insert(wall(2.0), 0.05)
        voxels.insert(wall(2.0, shifted(3.0 + 2.0 * index)), 0.05)
    x = voxels.points()[0][:, 0]
    assert np.count_nonzero(np.abs(x) < 1.0) == 1200


def test_nothing_to_show_leaves_the_map_alone() -> None:
    voxels = VoxelMap(voxel=0.02, max_voxels=3000)
    voxels.insert(replace(wall(), moving=np.ones((30, 40), bool)), 0.05)
    voxels.insert(wall(float("nan")), 0.05)
    assert len(voxels) == 0
    assert voxels.points()[0].shape == (0, 3)


def test_a_point_out_of_reach_is_left_out() -> None:
    voxels = VoxelMap(voxel=0.001, max_voxels=100_000)
    voxels.insert(wall(2.0, shifted(1e9)), 0.05)
    assert len(voxels) == 0
