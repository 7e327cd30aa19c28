"""Pixels that are not to be looked at: no corners, no depth, no matches there, and the rest as if
they did not exist."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.odometry.input import Input
from flow3r_ros.odometry.promotion import new_corners
from flow3r_ros.odometry.relocalisation import describe
from flow3r_ros.types import Camera, Frame, TrackingState
from test.odometry.plane import (
    CAMERA,
    Network,
    frames_of,
    position_error,
    seen_at,
    stepped,
)

HOOD = np.zeros((240, 320), np.bool_)
HOOD[120:] = True
"""the lower half shows the robot itself"""


def with_hood(frames: list[Frame], ignored: bool) -> list[Frame]:
    """A bonnet full of texture that does not move, as a robot's own body does."""
    body = np.random.default_rng(3).integers(0, 255, (15, 40, 3), np.uint8)
    body = np.kron(body, np.ones((8, 8, 1), np.uint8))
    found = []
    for frame in frames:
        rgb = frame.rgb.copy()
        rgb[120:] = body
        found.append(replace(frame, rgb=rgb, ignored=HOOD if ignored else None))
    return found


def test_a_robot_that_sees_itself_goes_where_it_goes() -> None:
    order = range(30)
    frames = with_hood(frames_of(order), ignored=True)
    estimates, _ = stepped(Network(order), frames)
    assert {e.tracking_state for e in estimates[1:]} == {TrackingState.TRACKING}
    assert max(position_error(e, 0, i) for i, e in enumerate(estimates)) < 0.03
    half = estimates[-1].depth.shape[0] // 2
    assert not np.isfinite(estimates[-1].depth[half + 2 :]).any()
    assert not estimates[-1].confidence[half + 2 :].any()
    assert np.isfinite(estimates[-1].depth[: half - 2]).mean() > 0.9
    told, _ = stepped(Network(order), with_hood(frames_of(order), ignored=False))
    assert np.isfinite(told[-1].depth[half + 2 :]).any(), "without the mask the body is a thing"


def test_a_mask_of_another_size_goes_through_the_lens() -> None:
    bent = Camera(
        320, 240, CAMERA.fx, CAMERA.fy, CAMERA.cx, CAMERA.cy, "plumb_bob", (-0.3, 0.1, 0, 0)
    )
    (frame,) = frames_of([0])
    small = HOOD[::4, ::4]
    for camera in (CAMERA, bent):
        view = Input(168).admit(replace(frame, camera=camera, ignored=small))
        assert view.ignored is not None
        assert view.ignored.shape == view.gray.shape
        half = view.gray.shape[0] // 2
        assert view.ignored[half + 3 :].all()
        assert not view.ignored[: half - 3].any()
        asked = np.array([[10.0, 20.0], [10.0, 200.0], [np.nan, 5.0]], np.float32)
        assert view.shows(asked).tolist() == [True, False, True]
    assert Input(168).admit(replace(frame, ignored=np.zeros((6, 8), np.bool_))).ignored is None


def test_neither_corners_nor_features_are_taken_there() -> None:
    view = seen_at(0)
    hidden = np.zeros(view.gray.shape, np.bool_)
    hidden[:, hidden.shape[1] // 2 :] = True
    blind = replace(view, ignored=hidden)
    corners = new_corners(blind, np.empty((0, 2), np.float32), 200)
    middle = view.tracking.shape[1] / 2
    assert len(corners) > 40
    assert corners[:, 0].max() < middle
    assert describe(blind).pixels[:, 0].max() < middle + 2
    assert describe(view).pixels[:, 0].max() > middle + 50
