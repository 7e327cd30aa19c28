"""Frames lie between the keyframes around them, whatever the unit of each."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from flow3r_ros.geometry.lie import sim3, sim3_parts
from flow3r_ros.slam.frames import FrameTrack
from flow3r_ros.types import TrackingState
from test.slam.factory import way


def track(states: dict[int, TrackingState] | None = None, count: int = 9) -> FrameTrack:
    frames = FrameTrack()
    for index in range(count):
        frames.add(
            SimpleNamespace(  # type: ignore[arg-type]
                frame_id=index, stamp_ns=100 * index, segment=0 if index < 7 else 1,
                T_odom_cam=way(index),
                tracking_state=(states or {}).get(index, TrackingState.TRACKING),
            )
        )  # fmt: skip
    return frames


def test_a_map_that_is_the_odometry_elsewhere_moves_every_frame_with_it() -> None:
    S = sim3(1.5, way(3)[:3, :3], [1.0, 2.0, 3.0])
    placed = {index: S @ way(index) for index in (1, 5)}
    found = track().in_map(placed, 2.0, "x")
    assert found is not None
    assert list(found.stamps_ns) == [
        100 * index for index in range(7)
    ]  # the other segment has none
    # output units are two odometry units, so that published steps count half in the map
    for index in (1, 5):
        assert np.allclose(found.poses[index][:3, 3], 2.0 * placed[index][:3, 3])
    in_units = track().in_map(placed, 1.0, "x")
    assert in_units is not None
    for index in range(7):
        _, R, t = sim3_parts(S @ way(index))
        assert np.allclose(in_units.poses[index][:3, :3], R)
        assert np.allclose(in_units.poses[index][:3, 3], t)


def test_frames_without_a_pose_are_there_only_where_the_map_places_them() -> None:
    states = {2: TrackingState.LOST, 3: TrackingState.LOST, 4: TrackingState.DEGRADED}
    placed = {0: way(0), 3: way(3), 4: way(8), 6: way(6)}
    found = track(states).in_map(placed, 1.0, "x")
    assert found is not None
    assert list(found.stamps_ns) == [0, 100, 300, 400, 500, 600]
    # the degraded frame lies where it was placed, and nothing is carried from its published pose
    assert np.allclose(found.poses[3], way(8))
    assert np.allclose(found.poses[4], way(5))


def test_nothing_placed_nothing_found() -> None:
    assert track().in_map({}, 1.0, "x") is None


def test_a_frame_is_found_by_its_id() -> None:
    frames = track()
    assert frames.stamp_ns(4) == 400
    assert np.array_equal(frames.centre(4), way(4)[:3, 3])
    with pytest.raises(KeyError):
        frames.centre(9)
