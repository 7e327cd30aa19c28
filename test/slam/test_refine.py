"""Refinement finds poses that the odometry told wrong, and places pictures it told nothing of."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

import flow3r_ros.slam.refine as module
from flow3r_ros.geometry.lie import invert, rigid, rotation_angle, se3_exp, so3_exp
from flow3r_ros.slam.adjustment import Solution
from flow3r_ros.slam.held_out import EVERY, HeldOut
from flow3r_ros.slam.picture_matches import PictureMatches
from flow3r_ros.slam.pictures import FramePictures, RefineView
from flow3r_ros.slam.refine import believed, refine
from flow3r_ros.slam.tracks import features_of, matched
from flow3r_ros.types import Frame
from test.geometry.views import CAMERA
from test.slam.factory import keyframe, pose

pytest.importorskip("pycolmap")


def true_pose(index: int) -> np.ndarray:
    return pose(2.0 * index, 0.25 * index, 0.05 * index)


def views() -> list[RefineView]:
    """Seven pictures of the room; every third has no pose, the others wrong ones."""
    from test.slam.scene import jpeg

    rng = np.random.default_rng(1)
    made = []
    for index in range(7):
        wrong = true_pose(index) @ se3_exp(rng.normal(0, [0.02] * 3 + [0.01] * 3))
        made.append(
            RefineView(
                10 * index, jpeg(true_pose(index)), CAMERA, None if index % 3 == 2 else wrong
            )
        )
    return made


@pytest.fixture
def fewer_features(monkeypatch: pytest.MonkeyPatch) -> None:
    """A third of them show the same in a third of the time, but in the corners of a picture."""
    monkeypatch.setattr("flow3r_ros.slam.tracks.MORE", 700)


@pytest.fixture
def from_poses_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is begun from scratch."""
    monkeypatch.setattr(module, "SCRATCH", 0)


@pytest.mark.usefixtures("from_poses_alone", "fewer_features")
def test_refined_poses_are_right_and_complete() -> None:
    given = views()
    result = refine(given)
    assert sorted(result.poses) == [view.frame_id for view in given]
    assert result.after_px < 0.5 * result.before_px
    assert result.points > 100
    base = invert(result.poses[0]) @ result.poses[60]
    true = invert(true_pose(0)) @ true_pose(6)
    scale = np.linalg.norm(true[:3, 3]) / np.linalg.norm(base[:3, 3])
    for index in range(1, 7):
        found = invert(result.poses[0]) @ result.poses[10 * index]
        truth = invert(true_pose(0)) @ true_pose(index)
        assert np.degrees(rotation_angle(found[:3, :3].T @ truth[:3, :3])) < 0.3
        assert np.linalg.norm(scale * found[:3, 3] - truth[:3, 3]) < 0.03


@pytest.mark.usefixtures("fewer_features")
def test_a_chain_that_broke_is_mended() -> None:
    """All pictures have poses, but behind the third one they were told somewhere else: points of
    either half hold its own pictures together."""
    elsewhere = rigid(so3_exp([0.0, 0.5, 0.0]), [1.5, 0.5, -0.6])
    given = [
        replace(view, pose=true_pose(at) if at < 4 else elsewhere @ true_pose(at))
        for at, view in enumerate(views())
    ]
    result = refine(given)
    assert len(result.poses) == len(given)
    steps = [
        np.linalg.norm((invert(result.poses[10 * a]) @ result.poses[10 * a + 10])[:3, 3])
        for a in range(6)
    ]
    true = [np.linalg.norm((invert(true_pose(a)) @ true_pose(a + 1))[:3, 3]) for a in range(6)]
    share = np.array(steps) / true
    assert share.max() < 1.1 * share.min()


@pytest.mark.usefixtures("fewer_features")
def test_pictures_that_odometry_lost_are_begun_from_scratch() -> None:
    first, *others = views()
    given = [first, *(replace(view, pose=None) for view in others)]
    result = refine(given)
    assert len(result.poses) == len(given)
    assert first.pose is not None
    np.testing.assert_allclose(result.poses[first.frame_id], first.pose, atol=1e-6)
    assert np.isclose(np.median(result.depths[first.frame_id][1]), 1.0)
    for index in range(1, 7):
        found = invert(result.poses[0]) @ result.poses[10 * index]
        truth = invert(true_pose(0)) @ true_pose(index)
        assert np.degrees(rotation_angle(found[:3, :3].T @ truth[:3, :3])) < 0.3


def test_a_picture_that_most_matches_contradict_is_not_believed() -> None:
    given = views()
    features = [features_of(view.gray()) for view in given]
    matches = PictureMatches([CAMERA] * len(given), [each.pixels for each in features])
    for first in range(len(given)):
        for second in range(first + 1, min(first + 3, len(given))):
            matches.add(first, second, matched(features[first], features[second]))
    poses = {at: true_pose(at) for at in range(len(given))}
    depths = {at: (np.empty(0, np.intp), np.empty(0)) for at in poses}
    right = Solution(poses, 0, 0, 0.0, 0.0, matches.cameras, depths)
    assert believed(matches, right).poses.keys() == poses.keys()
    elsewhere = true_pose(3) @ rigid(so3_exp([0.0, 0.3, 0.1]), [0.4, -0.3, 0.2])
    wrong = replace(right, poses={**poses, 3: elsewhere})
    kept = believed(matches, wrong)
    assert kept.poses.keys() == kept.depths.keys() == poses.keys() - {3}


def through_a_lens(picture: bytes, k1: float) -> bytes:
    """A picture as a lens with radial distortion would have taken it."""
    gray = cv2.imdecode(np.frombuffer(picture, np.uint8), cv2.IMREAD_GRAYSCALE)
    K = np.array([[CAMERA.fx, 0, CAMERA.cx], [0, CAMERA.fy, CAMERA.cy], [0, 0, 1]])
    pixels = np.stack(np.meshgrid(*map(np.arange, gray.shape[::-1])), axis=-1).astype(np.float64)
    source = cv2.undistortPoints(pixels.reshape(-1, 1, 2), K, np.array([k1, 0, 0, 0]), P=K)
    bent = cv2.remap(gray, source.reshape(*gray.shape, 2).astype(np.float32), None, cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", bent, [cv2.IMWRITE_JPEG_QUALITY, 95])[1].tobytes()


@pytest.mark.usefixtures("from_poses_alone")
def test_what_the_calibration_left_of_the_lens_is_found() -> None:
    k1 = 0.05
    given = [replace(view, picture=through_a_lens(view.picture, k1)) for view in views()]
    result = refine(given)
    reach = np.hypot(CAMERA.width, CAMERA.height) / 2.0 / CAMERA.fx
    # few features lie in the corners
    assert np.isclose(result.bend_px, CAMERA.fx * k1 * reach**3, rtol=0.25)
    assert result.held_out_after_px < 0.5 * result.held_out_before_px
    base = invert(result.poses[0]) @ result.poses[60]
    true = invert(true_pose(0)) @ true_pose(6)
    assert np.degrees(rotation_angle(base[:3, :3].T @ true[:3, :3])) < 0.3


def test_what_is_held_out_tells_right_poses_from_wrong_ones() -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform([-2, -2, 4], [2, 2, 8], (160, 3))
    poses = {0: np.eye(4), 1: pose(2.0, 0.4)}
    seen = {at: points @ invert(T)[:3, :3].T + invert(T)[:3, 3] for at, T in poses.items()}
    held_out = HeldOut()
    every = np.repeat(np.arange(160, dtype=np.uint32)[:, None], 2, axis=1)
    others = held_out.hold(0, 1, every)
    assert len(others) == 160 - 160 // EVERY

    def rays(at: int, rows: np.ndarray) -> np.ndarray:
        assert not set(rows) & set(others[:, 0])
        return seen[at][rows] / seen[at][rows, 2:]

    wrong = {**poses, 1: poses[1] @ se3_exp(np.radians([0, 0, 0, 0.5, 0, 0]))}
    assert held_out.error_px(poses, rays, 280.0) < 1e-6
    assert held_out.error_px(wrong, rays, 280.0) > 0.5
    assert np.isnan(held_out.error_px({0: np.eye(4)}, rays, 280.0))


def test_pictures_without_anything_in_common_refine_nothing() -> None:
    blank = RefineView(0, views()[0].picture, CAMERA, np.eye(4))
    gray = np.full((252, 336, 3), 127, np.uint8)
    pictures = FramePictures()
    pictures.add(Frame(1, 1, gray, CAMERA))
    (other,) = pictures.between([keyframe(0)])
    result = refine([blank, RefineView(1, other.picture, CAMERA, true_pose(1))])
    assert result.poses == {}


def test_kept_pictures_stay_bounded_and_even() -> None:
    pictures = FramePictures(most=8)
    for index in range(100):
        rgb = np.full((252, 336, 3), index, np.uint8)
        pictures.add(Frame(index, index, rgb, CAMERA))
    ids = [view.frame_id for view in pictures.between([keyframe(0)])]
    assert 3 <= len(ids) <= 8
    assert len(set(np.diff(ids[1:]))) == 1
