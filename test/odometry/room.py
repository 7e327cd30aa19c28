"""Views of the ray-cast room with exact depth and exact correspondences, for the tests of the
odometry's parts."""

from __future__ import annotations

import numpy as np
from flow3r_ros.odometry.assist import Link, Track

from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float64, Frame, PoseSource
from test.geometry.views import CAMERA, exact_correspondence, render


def view_at(T_world_cam: Float64, id_: int, relative_sigma: float = 0.02) -> View:
    """A view at its true pose that knows the true depth."""
    image = render(T_world_cam)
    rgb = np.repeat(image.gray[..., None], 3, axis=2)
    inverse = (1.0 / image.depth).astype(np.float32)
    return View(
        Frame(id_, id_ * 100_000_000, rgb, CAMERA),
        rgb,
        image.gray,
        CAMERA,
        T_world_cam.copy(),
        inverse,
        (relative_sigma * inverse).astype(np.float32),
        np.zeros(image.gray.shape, np.bool_),
    )


def track_from(reference: View, view: View, still: View | None = None) -> Track:
    """What exact correspondence from one keyframe says about a view at its true pose."""
    T_reference_view = invert(reference.pose) @ view.pose
    flow, _, _ = exact_correspondence(T_reference_view, reference.pose)
    link = Link(reference, flow)
    return Track((link,), None, (), None, PoseSource.TWO_VIEW, view.pose, still)
