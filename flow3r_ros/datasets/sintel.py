"""MPI Sintel (Butler et al., ECCV 2012) with its depth and camera extension.

`training/final/SCENE/frame_0001.png`, `training/depth/SCENE/frame_0001.dpt`,
`training/camdata_left/SCENE/frame_0001.cam`. A .dpt file is float tag 202021.25, int32 width, int32
height, float32 depth; a .cam file is the tag, 9 float64 of K and 12 float64 of [R|t], world to
camera.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.files import DOWNLOAD_AGAIN, image_size, need, need_any, pinhole_of
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Float32, Float64

TAG = 202021.25
FRAME_NS = 41_666_667
"""nominal: 24 frames a second"""


def read_sintel(folder: Path) -> Sequence:
    """A scene, `training/final/SCENE`; camera data and depth are separate downloads, found beside
    `final` where they are.

    Raises:
        InputError: a file of the scene is missing or damaged.
    """
    training = folder.absolute().parent.parent
    images = need_any(folder, "frame_*.png", "images of the scene")
    width, height = image_size(images[0])
    posed, deep = (training / "camdata_left").is_dir(), (training / "depth").is_dir()
    shots = []
    for index, image in enumerate(images):
        camera = pose = reader = None
        if posed:
            cam = training / "camdata_left" / folder.name / f"{image.stem}.cam"
            matrix, pose = _read_cam(need(cam, "camera data (separate download)"))
            camera = pinhole_of(width, height, matrix)
        if deep:
            depth = training / "depth" / folder.name / f"{image.stem}.dpt"
            reader = partial(_read_dpt, need(depth, "depth (separate download)"))
        shots.append(Shot(image, index * FRAME_NS, camera, pose, reader))
    return Sequence(folder.name, tuple(shots))


def _read_cam(path: Path) -> tuple[Float64, Float64]:
    """K `[3, 3]` and camera-to-world `[4, 4]`."""
    data = path.read_bytes()
    if len(data) < 4 + 21 * 8 or np.frombuffer(data, "<f4", 1)[0] != np.float32(TAG):
        raise InputError(f"{path}: is not a Sintel camera file", DOWNLOAD_AGAIN)
    values = np.frombuffer(data, "<f8", 21, offset=4)
    world_to_camera = np.vstack([values[9:].reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
    return values[:9].reshape(3, 3).copy(), invert(world_to_camera)


def _read_dpt(path: Path) -> Float32:
    """Depth `[H, W]`; the sky (beyond 70 units, as in MonST3R) is invalid."""
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(TAG):
        raise InputError(f"{path}: is not a Sintel depth file", DOWNLOAD_AGAIN)
    width, height = (int(value) for value in np.frombuffer(data, "<i4", 2, offset=4))
    if len(data) != 12 + 4 * width * height:
        raise InputError(f"{path}: is cut short", DOWNLOAD_AGAIN)
    depth = np.frombuffer(data, "<f4", width * height, offset=12).reshape(height, width).copy()
    depth[~((depth > 0) & (depth < 70))] = np.nan
    return depth
