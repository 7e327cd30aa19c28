"""The tracker on a plane with known poses: right poses from poor starts, with nothing that judges
used to find them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.lie import invert, rotation_angle
from flow3r_ros.odometry.corners import HELD_BACK
from flow3r_ros.odometry.tracking import Tracker
from test.odometry.plane import BLACK, reference_at, relative, seen_at, view


def off(found: np.ndarray, a: int, b: int) -> tuple[float, float]:
    """Distance, and angle in degrees, from the true pose of b in a."""
    error = invert(relative(a, b)) @ found
    return float(np.linalg.norm(error[:3, 3])), float(np.degrees(rotation_angle(error[:3, :3])))


def test_a_sequence_is_followed_from_one_keyframe() -> None:
    tracker, reference = Tracker(), reference_at(0)
    tracker.follow(reference, np.eye(4))
    pose = np.eye(4)
    for index in range(1, 13, 2):
        tracked = tracker.track(seen_at(index), pose)
        assert tracked is not None
        pose = tracked.T_ref_cam
        distance, angle = off(pose, 0, index)
        assert distance < 0.01
        assert angle < 0.1
        assert tracked.agreed.mean() > 0.6
        assert np.median(tracked.judged) < 3.0


def test_the_first_picture_may_be_far_from_its_prediction() -> None:
    tracker = Tracker()
    tracker.follow(reference_at(0), np.eye(4))
    tracker.track(seen_at(0), np.eye(4))
    tracked = tracker.track(seen_at(6), np.eye(4))
    assert tracked is not None
    assert off(tracked.T_ref_cam, 0, 6)[0] < 0.01


def test_unknown_depth_gives_the_rotation_all_the_same() -> None:
    exact = reference_at(0)
    count = len(exact.ids)
    points = DepthPoints(exact.points.rays, np.full(count, 0.5), np.full(count, 0.5))
    tracker = Tracker()
    tracker.follow(replace(exact, points=points), np.eye(4))
    tracker.track(seen_at(0), np.eye(4))
    tracked = tracker.track(seen_at(3), np.eye(4))
    assert tracked is not None
    assert off(tracked.T_ref_cam, 0, 3)[1] < 1.0


def test_one_in_four_is_held_back_and_never_changes_the_pose() -> None:
    reference = reference_at(0)
    assert reference.held_back.mean() == pytest.approx(1 / HELD_BACK, abs=0.02)
    wrong = reference.points.inverse * np.where(reference.held_back, 3.0, 1.0)
    bent = replace(
        reference, points=DepthPoints(reference.points.rays, wrong, reference.points.sigma)
    )
    poses = []
    for each in (reference, bent):
        tracker = Tracker()
        tracked = tracker.look(seen_at(4), each, relative(0, 4))
        poses.append(tracked.T_ref_cam)
    np.testing.assert_allclose(poses[0], poses[1], atol=2e-3)


def test_looking_changes_nothing() -> None:
    tracker, reference = Tracker(), reference_at(0)
    tracked = tracker.look(seen_at(5), reference, relative(0, 5))
    assert tracker.reference is None
    assert tracked.fit is not None
    assert off(tracked.T_ref_cam, 0, 5)[0] < 0.01


def test_without_keyframe_or_of_another_size_there_is_nothing() -> None:
    tracker = Tracker()
    assert tracker.track(seen_at(0), np.eye(4)) is None
    tracker.follow(reference_at(0), np.eye(4))
    small = view(np.ascontiguousarray(BLACK[::2, ::2]))
    assert tracker.track(small, np.eye(4)) is None
    tracker.reset()
    assert tracker.reference is None


def test_a_black_picture_gives_no_pose() -> None:
    tracker = Tracker()
    tracker.follow(reference_at(0), np.eye(4))
    tracker.track(seen_at(0), np.eye(4))
    tracked = tracker.track(view(BLACK, 1), np.eye(4))
    assert tracked is not None
    assert np.count_nonzero(tracked.judged < 3.0) < 6


def test_better_depths_keep_what_was_seen_last() -> None:
    tracker, reference = Tracker(), reference_at(0)
    tracker.follow(reference, np.eye(4))
    last = tracker.track(seen_at(1), np.eye(4))
    assert last is not None
    tracker.follow(reference, last.T_ref_cam, last)
    tracked = tracker.track(seen_at(2), last.T_ref_cam)
    assert tracked is not None
    assert off(tracked.T_ref_cam, 0, 2)[0] < 0.01


def test_corners_learn_their_depth_from_the_widest_parallax() -> None:
    right = reference_at(0)
    wrong = replace(
        right,
        points=DepthPoints(
            right.points.rays, 1.3 * right.points.inverse, 0.7 * right.points.inverse
        ),
    )
    tracker = Tracker()
    tracker.follow(wrong, np.eye(4))
    assert tracker.parallax_px == 0.0
    tracked = tracker.look(seen_at(6), right, relative(0, 6))
    tracker.learn(tracked)
    assert tracker.reference is not None
    learned, parallax = tracker.reference.points, tracker.parallax_px
    gave = tracked.agreed & ~right.held_back
    error = np.abs(learned.inverse / right.points.inverse - 1.0)[gave]
    assert np.median(error) < 0.05
    assert np.all(learned.sigma[gave] < wrong.points.sigma[gave])
    judges = right.held_back
    assert np.array_equal(learned.inverse[judges], wrong.points.inverse[judges]), "no witness"
    assert np.array_equal(learned.sigma[judges], wrong.points.sigma[judges])
    tracker.learn(tracker.look(seen_at(1), right, relative(0, 1)))
    assert tracker.parallax_px == parallax
    assert np.array_equal(tracker.reference.points.inverse[gave], learned.inverse[gave])


def test_a_frame_is_searched_once_more_whatever_motion_says() -> None:
    tracker = Tracker()
    tracker.follow(reference_at(0), np.eye(4))
    tracker.track(seen_at(2), relative(0, 2))
    quick = tracker.track(seen_at(4), relative(0, 4))
    assert quick is not None
    anew = tracker.track_anew(seen_at(4), np.eye(4), None)
    assert anew is not None
    assert off(anew.T_ref_cam, 0, 4)[0] < 0.01
    assert tracker.track_anew(seen_at(4), np.eye(4), None) is None
    far = tracker.track(seen_at(9), np.eye(4))
    assert far is not None
    assert tracker.track_anew(seen_at(9), np.eye(4), None) is None, "it was searched already"
