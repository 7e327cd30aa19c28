"""Benchmarks without ground truth: Kinetics-700 (Carreira et al., 2019) and EPIC-KITCHENS (Damen et
al., 2018).

The paper does not say what its reference was. Here EPIC-KITCHENS uses EPIC Fields (Tschernezki et
al., 2023): COLMAP poses in `VIDEO.json`; Kinetics uses poses that the user brings as `VIDEO.tum`
beside each video (say, of a larger model): numbers on it are agreement with that model, not
accuracy.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.datasets.files import image_size, need, need_any
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import invert, matrix_from_quaternion, rigid
from flow3r_ros.types import Camera
from flow3r_ros.wire.tum import read_tum


def epic_kitchens(root: Path) -> list[Sequence]:
    """`PXX/rgb_frames/VIDEO/frame_NNNNNNNNNN.jpg` with the EPIC Fields file `VIDEO.json` anywhere
    below the folder."""
    sequences = []
    for folder in sorted(path for path in root.glob("P*/rgb_frames/*") if path.is_dir()):
        found = sorted(root.rglob(f"{folder.name}.json"))
        if not found:
            raise InputError(
                f"{folder.name}.json is missing: pseudo ground truth of EPIC Fields",
                "put it below --data",
            )
        sequences.append(_epic_video(folder, found[0]))
    if not sequences:
        raise InputError(
            f"{root}: nothing matches P*/rgb_frames/VIDEO: frames of EPIC-KITCHENS",
            "unpack the frame archives",
        )
    return sequences


def _epic_video(folder: Path, fields: Path) -> Sequence:
    shots, without = [], 0
    try:
        data = json.loads(fields.read_text(encoding="utf-8"))
        lens, images = _lens(data["camera"]), data["images"]
        for image in need_any(folder, "frame_*.jpg", "frames of the video"):
            if image.name not in images:
                without += 1
                continue
            qw, qx, qy, qz, tx, ty, tz = images[image.name][:7]
            pose = invert(rigid(matrix_from_quaternion([qx, qy, qz, qw]), [tx, ty, tz]))
            stamp = round((int(image.stem.removeprefix("frame_")) - 1) * 1e9 / 59.94)
            shots.append(Shot(image, stamp, _fitted(lens, image), pose))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{fields}: is not an EPIC Fields file ({type(error).__name__}: {error})",
            "download it again",
        ) from error
    if not shots:
        raise InputError(f"{folder}: no frame is registered in {fields.name}")
    return Sequence(
        folder.name,
        tuple(shots),
        (f"{without} frames are not registered in EPIC Fields",) if without else (),
    )


def _lens(camera: dict[str, Any]) -> Camera:
    """COLMAP's OPENCV camera, whose pixel centres lie at halves."""
    if camera["model"] != "OPENCV":
        raise ValueError(f"camera model {camera['model']!r} is not OPENCV")
    fx, fy, cx, cy, *distortion = (float(value) for value in camera["params"])
    size = int(camera["width"]), int(camera["height"])
    return Camera(*size, fx, fy, cx - 0.5, cy - 0.5, "plumb_bob", (*distortion[:4], 0.0))


def _fitted(lens: Camera, image: Path) -> Camera:
    """The lens at the size of the image (EPIC's frames are 456x256, its registration may be
    larger)."""
    width, height = image_size(image)
    sx, sy = width / lens.width, height / lens.height
    shifted = ((lens.cx + 0.5) * sx - 0.5, (lens.cy + 0.5) * sy - 0.5)
    return Camera(
        width, height, lens.fx * sx, lens.fy * sy, *shifted, lens.distortion_model, lens.distortion
    )


def kinetics(root: Path) -> list[Sequence]:
    """`CLASS/VIDEO` folders of extracted frames (`*.jpg`) with `VIDEO.tum`, pseudo ground truth,
    beside each; stamps in its order."""
    sequences = []
    for folder in sorted(
        path for path in root.glob("*/*") if path.is_dir() and any(path.glob("*.jpg"))
    ):
        truth = read_tum(
            need(
                folder.with_name(f"{folder.name}.tum"),
                "pseudo ground truth of the video (Kinetics has no true poses)",
            )
        )
        images = sorted(folder.glob("*.jpg"))
        if len(images) != len(truth.stamps_ns):
            raise InputError(
                f"{folder}: {len(images)} frames but {len(truth.stamps_ns)} poses in "
                f"{folder.name}.tum"
            )
        stamps = [int(stamp) for stamp in truth.stamps_ns]
        shots = [
            Shot(image, stamp, None, np.array(pose))
            for image, stamp, pose in zip(images, stamps, truth.poses, strict=True)
        ]
        sequences.append(Sequence(f"{folder.parent.name}/{folder.name}", tuple(shots)))
    if not sequences:
        raise InputError(
            f"{root}: nothing matches CLASS/VIDEO/*.jpg: extracted frames of Kinetics-700",
            "extract the videos' frames",
        )
    return sequences
