"""Results to image messages (REP-118 for depth); the way in is `wire.frames`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Bool, Float32, UInt8

Make = Callable[..., Any]
"""`make(type_name, **fields)` builds a message: an rclpy object in the node, a rosbags dataclass in
bags"""

Array = NDArray[Any]


def depth_image(make: Make, header: Any, values: Float32) -> Any:
    """`sensor_msgs/Image` 32FC1 (REP-118: metres or odometry units, NaN = invalid) of `values`
    float32 `[h, w]`."""
    return _image(make, header, np.ascontiguousarray(values, dtype="<f4"), "32FC1")


def mask_image(make: Make, header: Any, mask: Bool) -> Any:
    """`sensor_msgs/Image` mono8 of a mask `[h, w]`: 255 where True."""
    return _image(make, header, np.ascontiguousarray(mask, dtype=np.uint8) * np.uint8(255), "mono8")


def rgb_image(make: Make, header: Any, rgb: UInt8) -> Any:
    """`sensor_msgs/Image` rgb8 of `[H, W, 3]`."""
    return _image(make, header, np.ascontiguousarray(rgb), "rgb8")


def _image(make: Make, header: Any, values: Array, encoding: str) -> Any:
    height, width = values.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=values.strides[0],
        data=values.reshape(-1).view(np.uint8),
    )
