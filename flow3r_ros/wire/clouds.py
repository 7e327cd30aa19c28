"""Point clouds as `sensor_msgs/PointCloud2`: x y z rgb confidence, 20 bytes a point, little endian."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Bool, Estimate, Float32, Float64, UInt8
from flow3r_ros.wire.images import Make

POINT_DTYPE = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])
_FLOAT32 = 7
"""PointField.FLOAT32; rgb is declared so as well: RViz and PCL read its bits as 0x00RRGGBB"""


def estimate_cloud(make: Make, header: Any, estimate: Estimate, keep: Bool | None, transform: Float64 | None = None) -> Any:
    """Organized cloud `[h, w]` of an estimate in its optical frame, or moved by the rigid `transform` `[4, 4]` into the header's frame.

    Points are those of `Estimate.points()`; where `keep` `[h, w]` is False x, y, z are NaN, so every pixel keeps its place.
    """
    points = estimate.points()
    if keep is not None:
        points[~keep] = np.nan
    if transform is not None:
        points = points @ transform[:3, :3].T.astype(np.float32) + transform[:3, 3].astype(np.float32)
    return _cloud(make, header, points, estimate.rgb, estimate.confidence, dense=False)


def map_cloud(make: Make, header: Any, points: Float32, rgb: UInt8, confidence: Float32) -> Any:
    """Unorganized cloud of M map points: `[M, 3]`, uint8 `[M, 3]`, `[M]` in [0, 1]."""
    return _cloud(make, header, points[None], rgb[None], confidence[None], dense=True)


def _cloud(make: Make, header: Any, points: Float32, rgb: UInt8, confidence: Float32, dense: bool) -> Any:
    height, width = confidence.shape
    floats = np.empty((height, width, POINT_DTYPE.itemsize // 4), "<f4")
    floats[..., :3] = points
    floats.view("<u4")[..., 3] = _packed_colors(rgb)
    floats[..., 4] = confidence
    fields = [
        make("sensor_msgs/msg/PointField", name=name, offset=4 * index, datatype=_FLOAT32, count=1)
        for index, name in enumerate(POINT_DTYPE.names or ())
    ]
    return make(
        "sensor_msgs/msg/PointCloud2",
        header=header,
        height=height,
        width=width,
        fields=fields,
        is_bigendian=False,
        point_step=POINT_DTYPE.itemsize,
        row_step=POINT_DTYPE.itemsize * width,
        data=floats.reshape(-1).view(np.uint8),
        is_dense=dense,
    )


def _packed_colors(rgb: UInt8) -> NDArray[np.uint32]:
    """0x00RRGGBB of each pixel, `[h, w]`."""
    if not rgb.size:
        return np.empty(rgb.shape[:2], "<u4")
    bgra = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGRA)
    return np.asarray(bgra.view("<u4")[..., 0] & np.uint32(0x00FFFFFF))
