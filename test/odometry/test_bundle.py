"""Bundle adjustment against exact correspondences of a rendered room: what was disturbed comes
back, and what is fixed stays."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.lie import invert, rotation_angle, se3_exp
from flow3r_ros.odometry.bundle import Bundle, sample_points
from flow3r_ros.odometry.views import View
from flow3r_ros.training.scenes.renderer import SceneClip
from flow3r_ros.types import Float64, Frame
from test.odometry.oracle import clip_of

ROOM = {
    "seed": 2,
    "frames": 4,
    "width": 168,
    "height": 126,
    "layout": "room",
    "motion": "handheld",
    "movers": 0,
    "noise": 0.0,
}
WALK = {**ROOM, "speed": 0.06, "turn": 0.03, "textures": "photographs"}


def link(clip: SceneClip, a: int, b: int, outliers: float = 0.0) -> Correspondence:
    """Exact correspondence of two frames; a share of the flow vectors points anywhere."""
    random = np.random.default_rng((a, b))
    forward, backward = clip.flow(a, b), clip.flow(b, a)
    flows = []
    for flow, _ in (forward, backward):
        wrong = random.random(flow.shape[:2]) < outliers
        flows.append(
            np.where(wrong[..., None], flow + random.uniform(-25, 25, flow.shape), flow).astype(
                np.float32
            )
        )
    one = np.ones(flows[0].shape[:2], np.float32)
    seen = (forward[1].astype(np.float32), backward[1].astype(np.float32))
    return Correspondence(
        flow=flows[0],
        covisibility=seen[0],
        texture=one,
        backward=flows[1],
        backward_covisibility=seen[1],
        backward_texture=one,
    )


def views_of(clip: SceneClip, poses: Float64, depth_error: float = 0.0) -> list[View]:
    """Keyframes at `poses` that know the clip's depth, times a random factor a pixel."""
    random = np.random.default_rng(5)
    views = []
    for index, (rgb, pose) in enumerate(zip(clip.rgb, poses, strict=True)):
        gray = rgb.mean(axis=-1).astype(np.uint8)
        inverse = (np.exp(depth_error * random.normal(size=gray.shape)) / clip.depth[index]).astype(
            np.float32
        )
        frame = Frame(10 * index, index, rgb, clip.camera)
        sigma = 0.1 * inverse
        views.append(
            View(
                frame,
                rgb,
                gray,
                clip.camera,
                pose.copy(),
                inverse,
                sigma,
                np.zeros(gray.shape, np.bool_),
            )
        )
    return views


def bundle_of(clip: SceneClip, views: list[View], outliers: float = 0.0) -> Bundle:
    """Every keyframe linked to every one before it."""
    bundle = Bundle()
    for index, view in enumerate(views):
        links = {views[older].id: link(clip, older, index, outliers) for older in range(index)}
        bundle.add(view, links, views[: index + 1])
    return bundle


def disturbed(poses: Float64, size: float, count: int) -> Float64:
    """The last `count` poses moved by `size` (radians, and units of the scene)."""
    random = np.random.default_rng(7)
    moved = poses.copy()
    for index in range(len(poses) - count, len(poses)):
        moved[index] = moved[index] @ se3_exp(size * random.normal(size=6))
    return moved


def worst(views: list[View], truth: Float64) -> tuple[float, float]:
    """Largest position and rotation (radians) error."""
    error = [invert(pose) @ view.pose for view, pose in zip(views, truth, strict=True)]
    return max(float(np.linalg.norm(e[:3, 3])) for e in error), max(
        float(rotation_angle(e[:3, :3])) for e in error
    )


def settle(bundle: Bundle, views: list[View], fixed: set[int], times: int = 8) -> None:
    for _ in range(times):
        assert bundle.adjust(views, fixed, iterations=10)


def test_disturbed_poses_come_back() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, disturbed(clip.poses, 0.02, 2))
    before = worst(views, clip.poses)
    settle(bundle_of(clip, views), views, {0, 10})
    after = worst(views, clip.poses)
    assert before[0] > 0.01
    assert after[0] < 0.02 * before[0]
    assert after[1] < 0.02 * before[1]


def test_disturbed_depth_comes_back_with_the_poses() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, disturbed(clip.poses, 0.02, 2), depth_error=0.1)
    bundle = bundle_of(clip, views)
    points = bundle._points[0]
    truth = 1.0 / clip.depth[0][points.rows, points.columns]
    before = float(np.median(np.abs(points.inverse / truth - 1.0)))
    settle(bundle, views, {0, 10})
    assert before > 0.05
    assert float(np.median(np.abs(points.inverse / truth - 1.0))) < 0.15 * before
    assert worst(views, clip.poses)[0] < 2e-3


def test_a_third_of_wrong_matches_is_outvoted() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, disturbed(clip.poses, 0.02, 2))
    before = worst(views, clip.poses)
    settle(bundle_of(clip, views, outliers=0.3), views, {0, 10})
    assert worst(views, clip.poses)[0] < 0.1 * before[0]


def test_exact_poses_stay_where_they_are() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, clip.poses)
    settle(bundle_of(clip, views), views, {0}, times=1)
    assert worst(views, clip.poses)[0] < 1e-3


def test_fixed_poses_are_left_alone() -> None:
    clip = clip_of(**WALK)
    poses = disturbed(clip.poses, 0.02, 3)
    views = views_of(clip, poses)
    settle(bundle_of(clip, views), views, {0, 10, 20}, times=1)
    for index in range(3):
        assert np.array_equal(views[index].pose, poses[index])
    assert not np.array_equal(views[3].pose, poses[3])
    assert not bundle_of(clip, views).adjust(views, {view.id for view in views})


def test_without_links_there_is_nothing_to_adjust() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, clip.poses)
    bundle = Bundle()
    bundle.add(views[0], {}, views[:1])
    assert not bundle.adjust(views[:1], set())
    full = bundle_of(clip, views)
    full.clear()
    assert not full.adjust(views, {0})


def test_moving_pixels_have_no_say() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, clip.poses)
    for view in views:
        view.moving[:, :84] = True
    bundle = bundle_of(clip, views)
    for pair, exact in list(bundle._links.items()):
        for flow in (exact.flow, exact.backward):
            flow[:, :84] += 20.0
        bundle._links[pair] = exact
    settle(bundle, views, {0, 10})
    assert worst(views, clip.poses)[0] < 1e-3


def test_links_are_found_from_both_ends() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, clip.poses)
    bundle = bundle_of(clip, views)
    assert sorted(bundle.links_of(20)) == [0, 10, 30]
    np.testing.assert_array_equal(bundle.links_of(20)[0].flow, clip.flow(2, 0)[0])
    np.testing.assert_array_equal(bundle.links_of(0)[20].flow, clip.flow(0, 2)[0])


def test_what_a_forgotten_keyframe_said_of_depth_stays_as_prior() -> None:
    clip = clip_of(**WALK)
    views = views_of(clip, clip.poses, depth_error=0.15)
    bundle = bundle_of(clip, views)
    points = bundle._points[views[1].id]
    truth = 1.0 / clip.depth[1][points.rows, points.columns]
    error, sigma = (
        float(np.median(np.abs(points.prior / truth - 1.0))),
        float(np.median(points.prior_sigma)),
    )
    settle(bundle, views, {0, 10, 20}, times=2)
    bundle.remember(views[0], views[1:])
    assert float(np.median(np.abs(points.prior / truth - 1.0))) < 0.6 * error
    assert float(np.median(points.prior_sigma)) < 0.6 * sigma
    bundle.add(views[3], {}, views[1:])
    assert sorted(bundle.links_of(20)) == [10, 30]


def test_points_are_the_best_textured_pixel_of_each_cell() -> None:
    clip = clip_of(**WALK)
    view = views_of(clip, clip.poses)[0]
    view.inverse_depth[:, :84] = np.nan
    points = sample_points(view)
    assert len(points.rows) == (126 // 12) * (168 // 12)
    assert len(
        set(zip((points.rows // 12).tolist(), (points.columns // 12).tolist(), strict=True))
    ) == len(points.rows)
    unknown = points.columns < 84
    assert len(set(points.inverse[unknown].tolist())) == 1
    expected = 1.0 / clip.depth[0][points.rows, points.columns][~unknown]
    assert points.inverse[~unknown] == pytest.approx(expected, rel=1e-6)
    assert (points.prior_sigma / points.inverse)[unknown].min() > (
        points.prior_sigma / points.inverse
    )[~unknown].max()
