"""TartanAir (Wang et al., IROS 2020): rendered scenes with dense depth.

All cameras are 640x480 with fx = fy = 320, cx = 320, cy = 240; poses are in NED body axes (x
forward, y right, z down).
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.files import DOWNLOAD_AGAIN, image_size, need, need_any, numbers
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.lie import matrix_from_quaternion, rigid
from flow3r_ros.types import Camera, Float32

CAMERA = Camera(640, 480, 320.0, 320.0, 320.0, 240.0)
NED_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
SKY_M = 1000.0
"""depth from here on is sky and invalid"""
FRAME_NS = 33_333_333
"""nominal: frames have numbers, not stamps"""


def read_tartanair(folder: Path) -> Sequence:
    """A trajectory (`P000`): `image_left/N_left.png`, `depth_left/N_left_depth.npy` (a separate
    download), `pose_left.txt` (tx ty tz qx qy qz qw, NED).

    The world stays NED, the camera axes become optical.

    Raises:
        InputError: a file of the trajectory is missing or damaged.
    """
    images = need_any(folder / "image_left", "*_left.png", "images of the left camera")
    table = numbers(need(folder / "pose_left.txt", "true poses"))
    if table.shape != (len(images), 7):
        raise InputError(
            f"{folder / 'pose_left.txt'}: {table.shape[0]} poses of {table.shape[1]} numbers for "
            f"{len(images)} images",
            "download the trajectory again",
        )
    if not np.isfinite(table).all() or (np.linalg.norm(table[:, 3:], axis=1) < 1e-6).any():
        raise InputError(f"{folder / 'pose_left.txt'}: a pose is not finite", DOWNLOAD_AGAIN)
    camera = scaled(CAMERA, *image_size(images[0]))
    deep = (folder / "depth_left").is_dir()
    shots = []
    for index, (image, row) in enumerate(zip(images, table, strict=True)):
        pose = rigid(matrix_from_quaternion(row[3:]) @ NED_FROM_OPTICAL, row[:3])
        depth = folder / "depth_left" / f"{image.stem}_depth.npy"
        reader = partial(_read_depth, need(depth, "depth image")) if deep else None
        shots.append(Shot(image, index * FRAME_NS, camera, pose, reader))
    return Sequence(folder.name, tuple(shots))


def _read_depth(path: Path) -> Float32:
    try:
        depth = np.load(path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError, EOFError) as error:
        raise InputError(f"{path}: cannot be read as a depth array", DOWNLOAD_AGAIN) from error
    if depth.ndim != 2:
        raise InputError(f"{path}: is not a depth array [h, w]", DOWNLOAD_AGAIN)
    depth[~((depth > 0) & (depth < SKY_M))] = np.nan
    return np.asarray(depth)
