"""The keyframe map: ids stay sorted, capacity holds, and points are seen where they are."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.camera_pose import project_points
from flow3r_ros.odometry.keyframes import Keyframe, KeyframeMap, Points
from flow3r_ros.odometry.promotion import new_corners
from flow3r_ros.odometry.views import rays_of
from flow3r_ros.types import Float64
from test.odometry.plane import CAMERA, SCENE, depth_at, exact_inverse, seen_at


def keyframe_at(
    index: int, first_id: int, pose: Float64 | None = None, corners: int = 120, error: float = 0.0
) -> tuple[Keyframe, Points]:
    """A keyframe with points of its own, whose inverse depth is wrong by a random factor."""
    view = seen_at(index)
    pixels = new_corners(view, np.empty((0, 2), np.float32), corners)
    random = np.random.default_rng(index)
    exact = exact_inverse(index, view, pixels)
    inverse = exact * np.exp(error * random.normal(size=len(exact)))
    sigma = max(error, 0.02) * inverse
    ids = np.arange(first_id, first_id + len(pixels))
    points = Points(
        ids, np.full(len(ids), index), rays_of(view.lens, pixels), inverse, sigma,
        inverse.copy(), sigma.copy(),
    )  # fmt: skip
    moving = np.zeros(view.gray.shape, np.bool_)
    pose = SCENE.pose(index) if pose is None else pose
    depth = depth_at(index, view)
    return Keyframe(view, pose, ids, pixels, depth, depth, moving), points


def map_at(
    indices: list[int], capacity: int = 20, poses: list[Float64] | None = None, error: float = 0.0
) -> KeyframeMap:
    """Keyframes at these moments, each with points that nobody else sees yet."""
    map_ = KeyframeMap(capacity)
    for number, index in enumerate(indices):
        pose = None if poses is None else poses[number]
        map_.add(*keyframe_at(index, 1000 * number, pose, error=error))
    return map_


def test_observations_stay_sorted_and_the_newest_counts() -> None:
    keyframe, _ = keyframe_at(0, 100)
    extra = np.array([250, 5, 100])
    keyframe.observe(extra, np.full((3, 2), 7.0, np.float32))
    assert np.all(np.diff(keyframe.ids) > 0)
    for id_ in extra:
        assert keyframe.pixels[keyframe.ids == id_].tolist() == [[7.0, 7.0]]
    keyframe.forget(np.array([5, 250]))
    assert not np.isin([5, 250], keyframe.ids).any()
    assert len(keyframe.ids) == len(keyframe.pixels)


def test_over_capacity_the_oldest_goes_with_its_points() -> None:
    map_ = map_at([0, 4, 8])
    map_.keyframes[2].observe(np.array([3]), np.zeros((1, 2), np.float32))
    map_.capacity = 3
    map_.add(*keyframe_at(12, 3000))
    assert [keyframe.id for keyframe in map_.keyframes] == [4, 8, 12]
    assert set(map_.points.hosts.tolist()) == {4, 8, 12}
    assert 3 not in map_.keyframes[1].ids
    assert np.all(np.diff(map_.points.ids) > 0)
    assert map_.find(8) is map_.keyframes[1]


def test_points_are_seen_from_elsewhere_where_they_are() -> None:
    map_ = map_at([0])
    seen = map_.seen_from(map_.points.ids, SCENE.pose(10))
    pixels = project_points(seen, np.eye(4), CAMERA).astype(np.float32)
    np.testing.assert_allclose(seen.inverse, exact_inverse(10, seen_at(10), pixels), rtol=1e-4)
    behind = np.diag([-1.0, 1.0, -1.0, 1.0])
    assert (map_.seen_from(map_.points.ids, behind).inverse <= 0).all()
    assert len(map_.seen_from(np.empty(0, np.int64), np.eye(4))) == 0


def test_a_prior_is_reset_and_points_are_removed() -> None:
    map_ = map_at([0])
    rows = np.array([0, 2])
    map_.reset_prior(rows, np.full(2, 0.7), np.full(2, 0.1))
    assert map_.points.prior[rows].tolist() == map_.points.inverse[rows].tolist() == [0.7, 0.7]
    map_.change(rows, np.full(2, 0.6), np.full(2, 0.05))
    assert map_.points.prior[rows].tolist() == [0.7, 0.7]
    gone = map_.points.ids[rows]
    map_.remove(gone)
    assert not np.isin(gone, map_.points.ids).any()
    assert not np.isin(gone, map_.keyframes[0].ids).any()
    map_.clear()
    assert len(map_) == len(map_.points.ids) == 0


def test_pixels_stay_where_they_are_when_the_lens_is_longer() -> None:
    map_ = map_at([0, 8])
    before = [keyframe.view for keyframe in map_.keyframes]
    map_.refocus(1.1, 0.002, 0.01)
    map_.refocus(1.05, 0.001, 0.0)
    assert (map_.focal, map_.focal_sigma) == (1.05, 0.001)
    for keyframe, old in zip(map_.keyframes, before, strict=True):
        assert np.isclose(keyframe.view.lens.fx, 1.05 * old.lens.fx)
        assert np.isclose(keyframe.view.camera.fy, 1.05 * old.camera.fy)
        assert keyframe.view.frame is old.frame
        hosted = map_.points.only(map_.points.hosts == keyframe.id)
        again = project_points(
            map_.seen_from(hosted.ids, keyframe.pose), np.eye(4), keyframe.view.lens
        )
        where = keyframe.pixels[np.searchsorted(keyframe.ids, hosted.ids)]
        np.testing.assert_allclose(again, where, atol=1e-3)
