"""A map for other programs: its cloud, or poses and pictures as a COLMAP text model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flow3r_ros.geometry.lie import apply, invert, quaternion_from_matrix, rigid_part, sim3_parts
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.saved import SavedMap
from flow3r_ros.types import Float32, Float64, UInt8

MAX_RELATIVE_SIGMA = 0.1
"""relative sigma of a depth up to which it becomes a point"""
VOXEL = 0.01
"""edge of a voxel, of the median depth; one point stays in each"""


def cloud(saved: SavedMap) -> tuple[Float32, UInt8, Float32]:
    """Points `[M, 3]` of the map, colours uint8 `[M, 3]` and confidence `[M]`: the sure depths of
    the keyframes of its largest connected part, one a voxel."""
    parts = [_points(each, saved.poses[each.key]) for each in saved.largest_part()]
    points, rgb, confidence = (np.concatenate(column) for column in zip(*parts, strict=True))
    scale = np.median([sim3_parts(saved.poses[each.key])[0] * each.median_depth
                       for each in saved.largest_part()])  # fmt: skip
    order = np.argsort(-confidence, kind="stable")
    cells = np.floor(points[order] / (VOXEL * scale)).astype(np.int64)
    _, kept = np.unique(cells, axis=0, return_index=True)
    rows = order[np.sort(kept)]
    return points[rows], rgb[rows], confidence[rows]


def _points(keyframe: MapKeyframe, S_map_cam: Float64) -> tuple[Float32, UInt8, Float32]:
    grid, depth = keyframe.grid, keyframe.depth
    z, confidence = depth.depth(), depth.confidence()
    with np.errstate(invalid="ignore"):
        keep = np.isfinite(z) & (depth.sigma * z < MAX_RELATIVE_SIGMA)
    rows, columns = np.nonzero(keep)
    x = (columns - grid.cx) / grid.fx * z[keep]
    y = (rows - grid.cy) / grid.fy * z[keep]
    picture = keyframe.rgb()
    height, width = picture.shape[:2]
    v = np.minimum((rows + 0.5) * height / grid.height, height - 1).astype(int)
    u = np.minimum((columns + 0.5) * width / grid.width, width - 1).astype(int)
    local = np.stack([x, y, z[keep]], axis=1).astype(np.float32)
    return apply(S_map_cam, local), picture[v, u], confidence[keep]


def write_colmap(folder: Path, saved: SavedMap) -> None:
    """Write keyframes as a COLMAP text model (`cameras.txt`, `images.txt`, an empty `points3D.txt`)
    with `images/` into a folder that exists: poses world-to-camera, pixel centres at halves."""
    (folder / "images").mkdir()
    cameras, images = [], []
    for number, each in enumerate(saved.largest_part(), start=1):
        camera, name = each.camera, f"{each.key:06d}.jpg"
        (folder / "images" / name).write_bytes(each.picture)
        cameras.append(
            f"{number} PINHOLE {camera.width} {camera.height} {camera.fx:.9g} {camera.fy:.9g} "
            f"{camera.cx + 0.5:.9g} {camera.cy + 0.5:.9g}\n"
        )
        T = invert(rigid_part(saved.poses[each.key]))
        x, y, z, w = quaternion_from_matrix(T[:3, :3])
        numbers = " ".join(f"{value:.9g}" for value in (w, x, y, z, *T[:3, 3]))
        images.append(f"{number} {numbers} {number} {name}\n\n")
    (folder / "cameras.txt").write_text("".join(cameras), encoding="ascii")
    (folder / "images.txt").write_text("".join(images), encoding="ascii")
    (folder / "points3D.txt").write_text("", encoding="ascii")
