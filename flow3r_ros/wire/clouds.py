"""Point clouds as `sensor_msgs/PointCloud2`: x y z rgb confidence, 20 bytes a point, little
endian."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Bool, Estimate, Float32, Float64, UInt8
from flow3r_ros.wire.images import Make

POINT_DTYPE = np.dtype(
    [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")]
)
_FLOAT32 = 7
"""PointField.FLOAT32; rgb is declared so as well: RViz and PCL read its bits as 0x00RRGGBB"""


def estimate_cloud(
    make: Make, header: Any, estimate: Estimate, keep: Bool | None, transform: Float64 | None = None
) -> Any:
    """Organized cloud `[h, w]` of an estimate in its optical frame, or moved by the rigid
    `transform` `[4, 4]` into the header's frame.

    Points are those of `Estimate.points()`; where `keep` `[h, w]` is False x, y, z are NaN, so
    every pixel keeps its place.
    """
    if keep is not None:
        estimate = replace(estimate, depth=_only(keep, estimate.depth))
    points = estimate.points()
    if transform is not None:
        points = points @ transform[:3, :3].T.astype(np.float32) + transform[:3, 3].astype(
            np.float32
        )
    return _cloud(make, header, points, estimate.rgb, estimate.confidence, dense=False)


def _only(keep: Bool, depth: Float32) -> Float32:
    """`depth` where `keep`, else NaN; ten times as fast as `np.where` on a ragged mask."""
    kept = np.full_like(depth, np.nan, order="C")
    return np.asarray(
        cv2.copyTo(np.ascontiguousarray(depth), keep.view(np.uint8), kept), np.float32
    )


def map_cloud(make: Make, header: Any, points: Float32, rgb: UInt8, confidence: Float32) -> Any:
    """Unorganized cloud of M map points: `[M, 3]`, uint8 `[M, 3]`, `[M]` in [0, 1]."""
    return _cloud(make, header, points[None], rgb[None], confidence[None], dense=True)


def points_of(message: Any) -> tuple[Float32, UInt8]:
    """Points `[M, 3]` and colours uint8 `[M, 3]` of a cloud of ours, unknown ones left out."""
    rows = np.frombuffer(bytes(message.data), POINT_DTYPE)
    points = np.stack([rows["x"], rows["y"], rows["z"]], axis=1)
    known = np.isfinite(points).all(axis=1)
    colors = np.stack([rows["rgb"] >> shift & 0xFF for shift in (16, 8, 0)], axis=1)
    return points[known].astype(np.float32), colors[known].astype(np.uint8)


def _cloud(
    make: Make, header: Any, points: Float32, rgb: UInt8, confidence: Float32, dense: bool
) -> Any:
    height, width = confidence.shape
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
        data=_interleaved(points, rgb, confidence),
        is_dense=dense,
    )


def _interleaved(points: Float32, rgb: UInt8, confidence: Float32) -> UInt8:
    """Bytes of `POINT_DTYPE` for each pixel; the colour is 0x00RRGGBB."""
    if not confidence.size:
        return np.empty(0, np.uint8)
    bgra = cv2.cvtColor(np.ascontiguousarray(rgb), cv2.COLOR_RGB2BGRA)
    colors = bgra.view("<u4")[..., 0] & np.uint32(0x00FFFFFF)
    planes = [np.ascontiguousarray(plane, "<f4") for plane in (points, confidence)]
    merged: NDArray[np.float32] = np.asarray(cv2.merge([planes[0], colors.view("<f4"), planes[1]]))
    return merged.reshape(-1).view(np.uint8)
