"""One frame at the sizes that its readers want."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from flow3r_ros.geometry.camera import scaled
from flow3r_ros.odometry.input import view_of
from flow3r_ros.odometry.views import rays_through
from flow3r_ros.types import Frame
from test.geometry.views import CAMERA
from test.odometry.room import view_at


def test_every_grid_has_the_camera_of_its_size() -> None:
    rgb = np.zeros((504, 672, 3), np.uint8)
    view = view_of(Frame(7, 0, rgb, scaled(CAMERA, 672, 504)), 168)
    assert view.id == 7
    assert view.gray.shape == view.rgb.shape[:2] == (view.camera.height, view.camera.width)
    assert view.tracking.shape == (view.lens.height, view.lens.width)
    np.testing.assert_allclose(
        view.ratio, [view.lens.fx / view.camera.fx, view.lens.fy / view.camera.fy], rtol=0.02
    )


def test_a_picture_is_made_ready_once() -> None:
    view = view_at(np.eye(4), 0)
    assert view.picture is view.picture


@given(st.floats(-0.1, 0.1), st.floats(0.9, 1.1))
@settings(max_examples=30, deadline=None)
def test_what_is_straightened_is_bent_back(bend: float, focal: float) -> None:
    seen = Frame(0, 0, np.zeros((480, 640, 3), np.uint8), camera=CAMERA)
    view = view_of(seen, 336).with_lens(focal, bend)
    height, width = view.tracking.shape
    corners = np.array([[0, 0], [width, 0], [width / 2, height / 3], [width, height]], np.float32)
    straight = view.straightened(corners)
    np.testing.assert_allclose(view.bent(straight), corners, atol=0.05)
    again = rays_through(view_of(seen, 336).rays(corners), (1.0, 0.0), (focal, bend))
    np.testing.assert_allclose(view.rays(corners), again, atol=1e-9)
