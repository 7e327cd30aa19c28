"""Point clouds as binary PCD files (version 0.7) that PCL, CloudCompare and Open3D read: x y z, rgb
packed as PCL packs it, confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flow3r_ros.types import Float32, UInt8

_POINT = np.dtype([("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")])


def write_pcd(path: Path, points: Float32, rgb: UInt8, confidence: Float32) -> None:
    """Write points `[M, 3]`, colours uint8 `[M, 3]` and confidence `[M]` in [0, 1]; points that are
    not finite are left out."""
    keep = np.isfinite(points).all(axis=1)
    rows = np.empty(int(keep.sum()), _POINT)
    for axis, name in enumerate("xyz"):
        rows[name] = points[keep, axis]
    rows["rgb"] = rgb[keep].astype(np.uint32) @ np.array([1 << 16, 1 << 8, 1], np.uint32)
    rows["confidence"] = confidence[keep]
    header = [
        "VERSION 0.7",
        "FIELDS x y z rgb confidence",
        "SIZE 4 4 4 4 4",
        "TYPE F F F U F",
        "COUNT 1 1 1 1 1",
        f"WIDTH {len(rows)}",
        "HEIGHT 1",
        "VIEWPOINT 0 0 0 1 0 0 0",
        f"POINTS {len(rows)}",
        "DATA binary",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(rows.tobytes())
