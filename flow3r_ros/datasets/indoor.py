"""Static indoor scenes: ScanNet (Dai et al., 2017), 7-Scenes (Shotton et al., 2013), Neural RGB-D
(Azinovic et al., 2022)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.files import (
    image_size,
    need,
    need_any,
    numbers,
    pinhole_of,
    png_depth,
    pose_matrix,
)
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import InputError
from flow3r_ros.types import Camera, Float32

FRAME_NS = 33_333_333
"""nominal: none of the three has stamps; about 30 frames a second"""
SEVEN_SCENES_COLOUR, SEVEN_SCENES_DEPTH = 525.0, 585.0
"""pixels of focal length of the two lenses of a Kinect at 640x480"""
OPTICAL_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])


def read_scannet(folder: Path) -> Sequence:
    """A folder `sceneXXXX_YY` as ScanNet's SensReader writes it.

    `color/N.jpg`, `depth/N.png` (millimetres, its own lens), `pose/N.txt` (camera-to-world, -inf
    where lost), `intrinsic/intrinsic_color.txt` and `intrinsic_depth.txt`.

    Raises:
        InputError: a file of the scene is missing or damaged.
    """
    images = sorted(need_any(folder / "color", "*.jpg", "colour images"), key=_number)
    camera = pinhole_of(*image_size(images[0]), _intrinsics(folder, "color"))
    posed, deep = (folder / "pose").is_dir(), (folder / "depth").is_dir()
    lens = None
    if deep:
        first = need(folder / "depth" / f"{images[0].stem}.png", "depth image")
        lens = pinhole_of(*image_size(first), _intrinsics(folder, "depth"))
    shots = [
        Shot(
            image,
            _number(image) * FRAME_NS,
            camera,
            pose_matrix(folder / "pose" / f"{image.stem}.txt") if posed else None,
            _millimetres(folder / "depth" / f"{image.stem}.png") if deep else None,
            lens,
        )
        for image in images
    ]
    return Sequence(folder.name, tuple(shots))


def _intrinsics(folder: Path, lens: str) -> np.typing.NDArray[np.float64]:
    path = need(folder / "intrinsic" / f"intrinsic_{lens}.txt", f"{lens} intrinsics")
    matrix = numbers(path)
    if matrix.shape not in ((3, 3), (4, 4)) or not np.isfinite(matrix).all():
        raise InputError(f"{path}: is not a 4x4 matrix", "export the scene with SensReader")
    return matrix


def read_seven_scenes(folder: Path) -> Sequence:
    """A sequence `seq-XX` of a scene: `frame-NNNNNN.{color.png,depth.png,pose.txt}`, millimetres,
    65535 = invalid.

    Nothing in the release registers depth (585 pixels of focal length at 640x480, its page says) to
    colour (525, as every published protocol takes it). Those protocols, pi3's among them, read
    `frame-NNNNNN.depth.proj.png`, which SimpleRecon's preprocessing renders into the colour camera;
    it is used where it is present, else the raw depth with its own lens, whose offset of some
    centimetres stays.

    Raises:
        InputError: a file of the sequence is missing or damaged.
    """
    images = need_any(folder, "frame-*.color.png", "colour images")
    width, height = image_size(images[0])
    colour, infrared = (
        _centred(width, height, focal) for focal in (SEVEN_SCENES_COLOUR, SEVEN_SCENES_DEPTH)
    )
    registered = any(folder.glob("frame-*.depth.proj.png"))
    kind = "depth.proj" if registered else "depth"
    deep = any(folder.glob(f"frame-*.{kind}.png"))
    posed = any(folder.glob("frame-*.pose.txt"))
    shots = []
    for image in images:
        stem = image.name.removesuffix(".color.png")
        shots.append(
            Shot(
                image,
                _number(image, stem.rpartition("-")[2]) * FRAME_NS,
                colour,
                pose_matrix(folder / f"{stem}.pose.txt") if posed else None,
                _millimetres(folder / f"{stem}.{kind}.png", (0, 65535)) if deep else None,
                None if registered else infrared,
            )
        )
    raw = "raw depth, not registered to colour (no depth.proj.png): it is off by some centimetres"
    notes = (raw,) if deep and not registered else ()
    return Sequence(f"{folder.absolute().parent.name}/{folder.name}", tuple(shots), notes)


def _centred(width: int, height: int, focal: float) -> Camera:
    """The pinhole of a Kinect whose focal length is given for 640x480."""
    return Camera(width, height, focal * width / 640, focal * height / 480, width / 2, height / 2)


def read_neural_rgbd(folder: Path) -> Sequence:
    """A scene folder with `images/imgN.png`, `depth/depthN.png` (millimetres), `poses.txt` and
    `focal.txt`.

    `poses.txt` stacks 4x4 camera-to-world matrices in OpenGL axes, with `nan` lines where a pose is
    invalid.

    Raises:
        InputError: a file of the scene is missing or damaged.
    """
    images = sorted(need_any(folder / "images", "img*.png", "colour images"), key=_number)
    matrices = numbers(need(folder / "poses.txt", "poses"))
    if matrices.shape != (4 * len(images), 4):
        raise InputError(
            f"{folder / 'poses.txt'}: {len(matrices) / 4:g} poses for {len(images)} images",
            "download the scene again",
        )
    width, height = image_size(images[0])
    focal = float(numbers(need(folder / "focal.txt", "focal length"))[0, 0])
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    deep = (folder / "depth").is_dir()
    shots = []
    for image, pose in zip(images, matrices.reshape(-1, 4, 4), strict=True):
        depth = folder / "depth" / f"depth{_number(image)}.png"
        shots.append(
            Shot(
                image,
                _number(image) * FRAME_NS,
                camera,
                pose @ OPTICAL_FROM_GL if np.isfinite(pose).all() else None,
                partial(_near_depth, need(depth, "depth image")) if deep else None,
            )
        )
    return Sequence(folder.name, tuple(shots))


def _near_depth(path: Path) -> Float32:
    """Depth in metres; beyond 10 m it is invalid, as in the published loaders."""
    depth = png_depth(path, 1000.0)
    depth[depth > 10] = np.nan
    return depth


def _millimetres(path: Path, invalid: tuple[int, ...] = (0,)) -> partial[Float32]:
    return partial(png_depth, need(path, "depth image"), 1000.0, invalid)


def _number(image: Path, digits: str = "") -> int:
    digits = digits or image.stem.removeprefix("img")
    if not digits.isdigit():
        raise InputError(f"{image}: its name is not a frame number", "leave it out of the folder")
    return int(digits)
