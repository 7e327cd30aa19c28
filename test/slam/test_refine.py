"""Refinement finds poses that the odometry told wrong, and places pictures it told nothing of."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.geometry.lie import invert, rotation_angle, se3_exp
from flow3r_ros.slam.pictures import FramePictures, RefineView
from flow3r_ros.slam.refine import refine
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
