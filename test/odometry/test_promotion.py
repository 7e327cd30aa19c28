"""What becomes of a frame that is made a keyframe."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.odometry.promotion import as_place, new_corners, patience_ns
from flow3r_ros.odometry.tracking import Tracker
from test.odometry.plane import BLACK, SCENE, reference_at, relative, seen_at, view


def test_new_corners_keep_away_from_those_taken() -> None:
    where = seen_at(0)
    first = new_corners(where, np.empty((0, 2), np.float32), 60)
    more = new_corners(where, first, 120)
    assert 0 < len(first) <= 60
    assert len(first) + len(more) <= 120
    apart = np.linalg.norm(more[:, None] - first[None], axis=-1)
    assert apart.min() > 6
    assert len(new_corners(where, first, len(first))) == 0
    assert len(new_corners(view(BLACK), np.empty((0, 2), np.float32), 60)) == 0


def test_a_frame_as_a_place_knows_the_corners_that_both_it_and_the_keyframe_know() -> None:
    """The keyframe was built since the frame was tracked: it knows fewer corners now."""
    tracker, reference = Tracker(), reference_at(0)
    tracker.follow(reference, np.eye(4))
    tracked = tracker.track(seen_at(6), np.eye(4))
    assert tracked is not None
    half = np.arange(len(reference.ids)) % 2 == 0
    built = replace(
        reference,
        ids=reference.ids[half],
        pixels=reference.pixels[half],
        points=reference.points.only(half),
    )
    place = as_place(seen_at(6), built, tracked, SCENE.pose(6))
    assert place is not None
    expected = np.intersect1d(tracked.ids[tracked.agreed], built.ids)
    np.testing.assert_array_equal(place.ids, expected)
    assert len(expected) > 30
    seen = place.points.rays[:, :2] / place.points.rays[:, 2:]
    lens = place.view.lens
    where = seen * [lens.fx, lens.fy] + [lens.cx, lens.cy]
    assert np.median(np.linalg.norm(where - place.pixels, axis=1)) < 0.3
    back = Tracker().look(seen_at(10), place, relative(6, 10))
    assert back.fit is not None
    assert np.linalg.norm(back.T_ref_cam[:3, 3] - relative(6, 10)[:3, 3]) < 0.02


def test_a_frame_whose_corners_went_astray_is_no_place() -> None:
    tracker, reference = Tracker(), reference_at(0)
    tracker.follow(reference, np.eye(4))
    tracked = tracker.track(seen_at(6), np.eye(4))
    assert tracked is not None
    astray = replace(tracked, agreed=np.arange(len(tracked.ids)) < 5)
    assert as_place(seen_at(6), reference, astray, SCENE.pose(6)) is None
    assert as_place(seen_at(6), reference, None, SCENE.pose(6)) is None


def test_a_keyframe_waits_the_longer_the_more_is_still_seen() -> None:
    tracker = Tracker()
    tracker.follow(reference_at(0), np.eye(4))
    tracked = tracker.track(seen_at(1), np.eye(4))
    assert tracked is not None
    count = len(tracked.agreed)
    seen = [replace(tracked, agreed=np.arange(count) < share * count) for share in (0.2, 0.5, 0.9)]
    none, some, long = (patience_ns(each, each, 0.9) for each in seen)
    assert none == 0 < some < long
    assert patience_ns(seen[-1], seen[-1], 0.1) == 0, "the picture looks too different"
    assert patience_ns(seen[1], seen[-1], 0.9) == 0, "at this pace the next frame sees too little"
    assert patience_ns(seen[1], None, 0.9) == 0
