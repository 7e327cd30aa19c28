"""Static indoor scenes: ScanNet (Dai et al., 2017), 7-Scenes (Shotton et al., 2013), Neural RGB-D
(Azinovic et al., 2022)."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.sequence import (
    Sequence,
    Shot,
    image_size,
    need,
    need_any,
    numbers,
    pinhole_of,
    png_depth,
)
from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Camera, Float32, Float64

FRAME_NS = 33_333_333
"""nominal: none of the three has stamps; about 30 frames a second"""
SEVEN_SCENES_COLOUR, SEVEN_SCENES_DEPTH = 525.0, 585.0
"""pixels of focal length of the two lenses of a Kinect at 640x480"""
OPTICAL_FROM_GL = np.diag([1.0, -1.0, -1.0, 1.0])


def scannet(root: Path) -> list[Sequence]:
    """Folders `sceneXXXX_YY` as ScanNet's SensReader writes them.

    `color/N.jpg`, `depth/N.png` (millimetres), `pose/N.txt` (camera-to-world, -inf where lost),
    `intrinsic/intrinsic_color.txt` and `intrinsic_depth.txt`. Frames without a pose are left out
    and counted.
    """
    return [
        _scannet_scene(folder)
        for folder in need_any(root, "scene*_*", "scene folders written by SensReader")
    ]


def _scannet_scene(folder: Path) -> Sequence:
    images = sorted(
        need_any(folder / "color", "*.jpg", "colour images"), key=lambda path: int(path.stem)
    )
    width, height = image_size(images[0])
    camera = pinhole_of(
        width,
        height,
        numbers(need(folder / "intrinsic" / "intrinsic_color.txt", "colour intrinsics")),
    )
    depth_matrix = numbers(need(folder / "intrinsic" / "intrinsic_depth.txt", "depth intrinsics"))
    shots, lost, depth_camera = [], 0, None
    for image in images:
        depth = need(folder / "depth" / f"{image.stem}.png", "depth image")
        depth_camera = depth_camera or pinhole_of(*image_size(depth), depth_matrix)
        pose = _pose(need(folder / "pose" / f"{image.stem}.txt", "pose"))
        if pose is None:
            lost += 1
            continue
        shots.append(
            Shot(
                image,
                int(image.stem) * FRAME_NS,
                camera,
                pose,
                partial(png_depth, depth, 1000.0),
                depth_camera,
            )
        )
    return _sequence(folder, shots, lost)


def seven_scenes(root: Path) -> list[Sequence]:
    """Scene folders with `TestSplit.txt` and `seq-XX/frame-NNNNNN.{color.png,depth.png,pose.txt}`;
    only test sequences.

    Nothing in the release registers depth (585 pixels of focal length at 640x480, its page says) to
    colour (525, as every published protocol takes it). Those protocols, pi3's among them, read
    `frame-NNNNNN.depth.proj.png`, which SimpleRecon's preprocessing renders into the colour camera;
    it is used where it is present, else the raw depth with its own lens, whose offset of some
    centimetres stays.
    """
    sequences = []
    for split in need_any(root, "*/TestSplit.txt", "scene folders with TestSplit.txt"):
        for line in split.read_text(encoding="utf-8").split():
            digits = re.sub(r"\D", "", line)
            folder = need(
                split.parent / f"seq-{int(digits):02d}",
                "test sequence named in TestSplit.txt (unpack its zip)",
            )
            sequences.append(_seven_scenes_sequence(folder))
    return sequences


def _seven_scenes_sequence(folder: Path) -> Sequence:
    shots, lost = [], 0
    images = need_any(folder, "frame-*.color.png", "colour images")
    width, height = image_size(images[0])
    colour, infrared = (
        _centred(width, height, focal) for focal in (SEVEN_SCENES_COLOUR, SEVEN_SCENES_DEPTH)
    )
    registered = any(folder.glob("frame-*.depth.proj.png"))
    for image in images:
        stem = image.name.removesuffix(".color.png")
        depth = need(
            folder / f"{stem}.{'depth.proj' if registered else 'depth'}.png", "depth image"
        )
        pose = _pose(need(folder / f"{stem}.pose.txt", "pose"))
        if pose is None:
            lost += 1
            continue
        reader = partial(png_depth, depth, 1000.0, (0, 65535))
        shots.append(
            Shot(
                image,
                int(stem.rpartition("-")[2]) * FRAME_NS,
                colour,
                pose,
                reader,
                None if registered else infrared,
            )
        )
    sequence = _sequence(folder, shots, lost, f"{folder.parent.name}/{folder.name}")
    notes = (
        ()
        if registered
        else (
            "raw depth, not registered to colour (no depth.proj.png): its scores are "
            "too bad by that offset",
        )
    )
    return Sequence(sequence.name, sequence.shots, (*sequence.notes, *notes))


def _centred(width: int, height: int, focal: float) -> Camera:
    """The pinhole of a Kinect whose focal length is given for 640x480."""
    return Camera(width, height, focal * width / 640, focal * height / 480, width / 2, height / 2)


def neural_rgbd(root: Path) -> list[Sequence]:
    """Scene folders with `images/imgN.png`, `depth/depthN.png` (millimetres), `poses.txt` and
    `focal.txt`.

    `poses.txt` stacks 4x4 camera-to-world matrices in OpenGL axes, with `nan` lines where a pose is
    invalid.
    """
    return [
        _neural_rgbd_scene(path.parent)
        for path in need_any(root, "*/poses.txt", "scene folders with poses.txt")
    ]


def _neural_rgbd_scene(folder: Path) -> Sequence:
    images = sorted(
        need_any(folder / "images", "img*.png", "colour images"),
        key=lambda path: int(path.stem.removeprefix("img")),
    )
    matrices = numbers(folder / "poses.txt")
    if matrices.shape != (4 * len(images), 4):
        raise EvaluationError(
            f"{folder / 'poses.txt'}: {len(matrices) / 4:g} poses for {len(images)} images",
            "download the scene again",
        )
    width, height = image_size(images[0])
    focal = float(numbers(need(folder / "focal.txt", "focal length"))[0, 0])
    camera = Camera(width, height, focal, focal, (width - 1) / 2, (height - 1) / 2)
    shots, lost = [], 0
    for image, pose in zip(images, matrices.reshape(-1, 4, 4), strict=True):
        number = int(image.stem.removeprefix("img"))
        depth = need(folder / "depth" / f"depth{number}.png", "depth image")
        if not np.isfinite(pose).all():
            lost += 1
            continue
        shots.append(
            Shot(
                image,
                number * FRAME_NS,
                camera,
                pose @ OPTICAL_FROM_GL,
                partial(_near_depth, depth),
            )
        )
    return _sequence(folder, shots, lost)


def _near_depth(path: Path) -> Float32:
    """Depth in metres; beyond 10 m it is invalid, as in the published loaders."""
    depth = png_depth(path, 1000.0)
    depth[depth > 10] = np.nan
    return depth


def _pose(path: Path) -> Float64 | None:
    """A 4x4 camera-to-world matrix, None where it is marked invalid."""
    pose = numbers(path)
    if pose.shape != (4, 4):
        raise EvaluationError(f"{path}: is not a 4x4 matrix", "download the file again")
    return pose if np.isfinite(pose).all() else None


def _sequence(folder: Path, shots: list[Shot], lost: int, name: str = "") -> Sequence:
    if not shots:
        raise EvaluationError(f"{folder}: no frame has a pose")
    return Sequence(
        name or folder.name, tuple(shots), (f"{lost} frames without a pose",) if lost else ()
    )
