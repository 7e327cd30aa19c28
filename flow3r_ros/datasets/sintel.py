"""MPI Sintel (Butler et al., ECCV 2012) with its depth and camera extension.

`training/final/SCENE/frame_0001.png`, `training/depth/SCENE/frame_0001.dpt`,
`training/camdata_left/SCENE/frame_0001.cam`. A .dpt file is float tag 202021.25, int32 width, int32
height, float32 depth; a .cam file is the tag, 9 float64 of K and 12 float64 of [R|t], world to
camera. The 14 scenes are those of pi3 and MonST3R, which leave out scenes whose camera stands
still.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.sequence import Sequence, Shot, image_size, need, need_any, pinhole_of
from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Float32, Float64

SCENES = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2"),
    *("market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
TAG = 202021.25
FRAME_NS = 41_666_667
"""nominal: 24 frames a second"""


def sintel(root: Path) -> list[Sequence]:
    """The 14 scenes, or those of them that are present."""
    training = root / "training" if (root / "training").is_dir() else root
    present = [
        path
        for path in need_any(training / "final", "*", "the final pass, training/final/SCENE")
        if path.name in SCENES
    ]
    if not present:
        raise EvaluationError(
            f"{training / 'final'}: holds none of the 14 scenes {', '.join(SCENES)}"
        )
    return [_scene(training, path) for path in present]


def _scene(training: Path, folder: Path) -> Sequence:
    images = need_any(folder, "frame_*.png", "images of the scene")
    width, height = image_size(images[0])
    shots = []
    for index, image in enumerate(images):
        cam = need(
            training / "camdata_left" / folder.name / f"{image.stem}.cam",
            "camera data (separate download)",
        )
        depth = need(
            training / "depth" / folder.name / f"{image.stem}.dpt", "depth (separate download)"
        )
        matrix, pose = read_cam(cam)
        shots.append(
            Shot(
                image,
                index * FRAME_NS,
                pinhole_of(width, height, matrix),
                pose,
                partial(read_dpt, depth),
            )
        )
    missing = tuple(
        f"{name} is not present" for name in SCENES if not (training / "final" / name).is_dir()
    )
    return Sequence(
        folder.name,
        tuple(shots),
        missing[:1] and (f"{len(missing)} of the 14 scenes are not present",),
    )


def read_cam(path: Path) -> tuple[Float64, Float64]:
    """K `[3, 3]` and camera-to-world `[4, 4]`."""
    data = path.read_bytes()
    if len(data) < 4 + 21 * 8 or np.frombuffer(data, "<f4", 1)[0] != np.float32(TAG):
        raise EvaluationError(f"{path}: is not a Sintel camera file", "download the file again")
    values = np.frombuffer(data, "<f8", 21, offset=4)
    world_to_camera = np.vstack([values[9:].reshape(3, 4), [0.0, 0.0, 0.0, 1.0]])
    return values[:9].reshape(3, 3).copy(), invert(world_to_camera)


def read_dpt(path: Path) -> Float32:
    """Depth `[H, W]`; the sky (beyond 70 units, as in MonST3R) is invalid."""
    data = path.read_bytes()
    if len(data) < 12 or np.frombuffer(data, "<f4", 1)[0] != np.float32(TAG):
        raise EvaluationError(f"{path}: is not a Sintel depth file", "download the file again")
    width, height = (int(value) for value in np.frombuffer(data, "<i4", 2, offset=4))
    if len(data) != 12 + 4 * width * height:
        raise EvaluationError(f"{path}: is cut short", "download the file again")
    depth = np.frombuffer(data, "<f4", width * height, offset=12).reshape(height, width).copy()
    depth[~((depth > 0) & (depth < 70))] = np.nan
    return depth
