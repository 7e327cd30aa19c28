"""One frame at the sizes that its readers want."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.camera import scaled
from flow3r_ros.odometry.input import view_of
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
