"""CO3Dv2 (Reizenstein et al., ICCV 2021): `CATEGORY/frame_annotations.jgz` beside
`CATEGORY/SEQUENCE/images/frameNNNNNN.jpg`.

Viewpoints are PyTorch3D's: row vectors, x left, y up, z forward, focal length and principal point
in NDC (isotropic: the shorter side is two units). Depth is a 16-bit PNG whose bits are float16,
times `scale_adjustment`, masked by `depth_masks`.
"""

from __future__ import annotations

import gzip
import json
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flow3r_ros.datasets.files import DOWNLOAD_AGAIN, need, sixteen_bit
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import invert, nearest_rotation, rigid
from flow3r_ros.types import Camera, Float32, Float64

ANNOTATIONS = "frame_annotations.jgz"
OPTICAL_FROM_PYTORCH3D = np.diag([-1.0, -1.0, 1.0])
FRAME_NS = 33_333_333
"""nominal: frames have numbers, not stamps"""


def read_co3d(folder: Path) -> list[Sequence]:
    """Every annotated sequence of a category whose images are present, in the order of the
    annotations; of a sequence's own folder, that one.

    Raises:
        InputError: annotations are missing or damaged, or no annotated image is present.
    """
    folder = folder.absolute()
    category = folder if (folder / ANNOTATIONS).exists() else folder.parent
    path = need(category / ANNOTATIONS, "annotations of a category")
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            annotations = json.load(file)
        grouped: dict[str, list[dict[str, Any]]] = {}
        for entry in annotations:
            grouped.setdefault(entry["sequence_name"], []).append(entry)
        sequences = [
            _sequence(category, name, entries)
            for name, entries in grouped.items()
            if folder in (category, category / name)
        ]
    except (OSError, EOFError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{path}: cannot be read ({type(error).__name__}: {error})",
            "download the annotations again",
        ) from error
    present = [sequence for sequence in sequences if sequence.shots]
    if not present:
        raise InputError(
            f"{folder}: annotations are here but no image is",
            "unpack the image archives of the categories",
        )
    return present


def _sequence(category: Path, name: str, entries: list[dict[str, Any]]) -> Sequence:
    root = category.parent
    present = [entry for entry in entries if (root / entry["image"]["path"]).exists()]
    absent = len(entries) - len(present)
    shots = [_shot(root, entry) for entry in sorted(present, key=lambda e: e["frame_number"])]
    notes = (f"{absent} annotated images are not present",) if absent else ()
    return Sequence(f"{category.name}/{name}", tuple(shots), notes)


def _shot(root: Path, entry: dict[str, Any]) -> Shot:
    height, width = (int(value) for value in entry["image"]["size"])
    view = entry["viewpoint"]
    depth = entry.get("depth")
    reader = partial(_read_depth, root, depth) if depth else None
    return Shot(
        root / entry["image"]["path"],
        int(entry["frame_number"]) * FRAME_NS,
        _camera(view, width, height),
        _pose(view),
        reader,
    )


def _camera(view: dict[str, Any], width: int, height: int) -> Camera:
    isotropic = view.get("intrinsics_format", "ndc_norm_image_bounds") == "ndc_isotropic"
    half = np.array([min(width, height)] * 2 if isotropic else [width, height]) / 2
    focal, point = np.array(view["focal_length"]) * half, np.array(view["principal_point"]) * half
    # PyTorch3D measures from the image's outer border, x to the left and y up; ours has pixel
    # centres at integers.
    return Camera(
        width,
        height,
        float(focal[0]),
        float(focal[1]),
        width / 2 - float(point[0]) - 0.5,
        height / 2 - float(point[1]) - 0.5,
    )


def _pose(view: dict[str, Any]) -> Float64:
    """Camera-to-world of the optical frame."""
    R, T = np.array(view["R"], np.float64), np.array(view["T"], np.float64)
    return invert(rigid(nearest_rotation(OPTICAL_FROM_PYTORCH3D @ R.T), OPTICAL_FROM_PYTORCH3D @ T))


def _read_depth(root: Path, entry: dict[str, Any]) -> Float32:
    path = need(root / entry["path"], "depth map")
    depth = sixteen_bit(path).view(np.float16).astype(np.float32)
    depth *= np.float32(entry["scale_adjustment"])
    mask = root / entry["mask_path"] if entry.get("mask_path") else None
    if mask is not None and mask.exists():
        valid = cv2.imread(str(mask), cv2.IMREAD_GRAYSCALE)
        if valid is None or valid.shape != depth.shape:
            raise InputError(f"{mask}: is not the mask of {path.name}", DOWNLOAD_AGAIN)
        depth[valid == 0] = np.nan
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth
