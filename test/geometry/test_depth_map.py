"""Depth maps: what confidence means, and depth seen through another lens."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import Rectifier
from flow3r_ros.geometry.depth_map import resample_depth
from flow3r_ros.types import Camera


def test_resampling_keeps_values_and_marks_what_is_outside() -> None:
    depth = np.arange(1, 13, dtype=np.float32).reshape(3, 4)
    camera = Camera(4, 3, 10.0, 10.0, 1.5, 1.0)
    np.testing.assert_array_equal(resample_depth(depth, camera, camera), depth)
    wider = resample_depth(depth, camera, Camera(8, 6, 10.0, 10.0, 3.5, 3.0))
    with pytest.raises(InputError, match="depth of 4x3 pixels has intrinsics for 8x6"):
        resample_depth(depth, Camera(8, 6, 10.0, 10.0, 3.5, 3.0), camera)
    assert np.isnan(wider[0]).all()
    np.testing.assert_array_equal(wider[2:5, 2:6], depth)


def test_depth_of_a_distorted_lens_is_found_where_the_picture_is() -> None:
    """A smooth ramp, undistorted as a picture (bilinear) and as depth (nearest), is the same to a
    step of the ramp."""
    lens = Camera(64, 48, 60.0, 60.0, 31.5, 23.5, "plumb_bob", (-0.25, 0.05, 0.0, 0.0, 0.0))
    rectifier = Rectifier(lens)
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 3 + 10, (48, 1))
    depth = resample_depth(ramp.astype(np.float32), lens, rectifier.rectified)
    picture = rectifier.apply(cv2.merge([ramp] * 3))[..., 0]
    known = np.isfinite(depth)
    assert known.mean() > 0.9
    assert np.abs(depth - picture)[known].max() <= 4.0
    assert not np.array_equal(depth[known], ramp[known])
