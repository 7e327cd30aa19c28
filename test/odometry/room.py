"""Views of the ray-cast room with known poses, for the tests of the odometry's parts."""

from __future__ import annotations

import numpy as np

from flow3r_ros.odometry.input import view_of
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float64, Frame
from test.geometry.views import CAMERA, render


def view_at(T_world_cam: Float64, id_: int) -> View:
    """What a camera at this pose sees."""
    rgb = np.repeat(render(T_world_cam).gray[..., None], 3, axis=2)
    return view_of(Frame(id_, id_ * 100_000_000, rgb, CAMERA), CAMERA.width)
