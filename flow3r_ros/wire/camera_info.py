"""`sensor_msgs/CameraInfo` as numbers, and a camera as a CameraInfo."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from flow3r_ros.types import Camera
from flow3r_ros.wire.images import Make

Intrinsics = tuple[float, float, float, float]
"""fx, fy, cx, cy in pixels"""


@dataclass(frozen=True)
class InfoFields:
    """What a CameraInfo says, ROS 1 or ROS 2 field names: `width`, `height` in pixels (0 where not
    filled in), `k` and `p` as fx, fy, cx, cy, `roi` as x, y, width, height of the full image."""

    width: int
    height: int
    model: str
    distortion: tuple[float, ...]
    k: Intrinsics
    p: Intrinsics
    roi: tuple[int, int, int, int]
    binning: tuple[int, int]
    frame_id: str

    @staticmethod
    def of(info: Any) -> InfoFields:
        """The fields of a message."""
        k, d, p = (
            [float(value) for value in getattr(info, name if hasattr(info, name) else name.upper())]
            for name in ("k", "d", "p")
        )
        roi = info.roi
        return InfoFields(
            int(info.width),
            int(info.height),
            str(info.distortion_model),
            tuple(d),
            (k[0], k[4], k[2], k[5]),
            (p[0], p[5], p[2], p[6]),
            (int(roi.x_offset), int(roi.y_offset), int(roi.width), int(roi.height)),
            (max(int(info.binning_x), 1), max(int(info.binning_y), 1)),
            str(info.header.frame_id).lstrip("/"),
        )


def info_from_camera(make: Make, header: Any, camera: Camera) -> Any:
    """`sensor_msgs/CameraInfo` of a camera: R is the identity, P = [K 0], no region of interest, no
    binning."""
    projection = np.zeros((3, 4))
    projection[:, :3] = camera.matrix
    model = "plumb_bob" if camera.distortion_model == "none" else camera.distortion_model
    return make(
        "sensor_msgs/msg/CameraInfo",
        header=header,
        height=camera.height,
        width=camera.width,
        distortion_model=model,
        d=np.array(camera.distortion or (0.0,) * 5, dtype=np.float64),
        k=camera.matrix.reshape(-1).copy(),
        r=np.eye(3).reshape(-1),
        p=projection.reshape(-1),
        binning_x=0,
        binning_y=0,
        roi=make(
            "sensor_msgs/msg/RegionOfInterest",
            x_offset=0,
            y_offset=0,
            height=0,
            width=0,
            do_rectify=False,
        ),
    )
