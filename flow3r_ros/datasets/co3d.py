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

from flow3r_ros.datasets.sequence import Sequence, Shot, need, need_any
from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import invert, nearest_rotation, rigid
from flow3r_ros.types import Camera, Float32, Float64

OPTICAL_FROM_PYTORCH3D = np.diag([-1.0, -1.0, 1.0])
FRAME_NS = 33_333_333


def co3d(root: Path) -> list[Sequence]:
    """Every annotated sequence whose images are present, in the order of the annotations."""
    sequences = []
    for path in need_any(root, "*/frame_annotations.jgz", "annotations of a category"):
        try:
            with gzip.open(path, "rt", encoding="utf-8") as file:
                annotations = json.load(file)
        except (OSError, ValueError) as error:
            raise EvaluationError(
                f"{path}: cannot be read ({error})", "download the annotations again"
            ) from error
        grouped: dict[str, list[dict[str, Any]]] = {}
        for entry in annotations:
            grouped.setdefault(entry["sequence_name"], []).append(entry)
        for name, entries in grouped.items():
            present = [entry for entry in entries if (root / entry["image"]["path"]).exists()]
            if present:
                absent = len(entries) - len(present)
                notes = (f"{absent} annotated images are not present",) if absent else ()
                shots = tuple(
                    _shot(root, entry)
                    for entry in sorted(present, key=lambda entry: entry["frame_number"])
                )
                sequences.append(Sequence(f"{path.parent.name}/{name}", shots, notes))
    if not sequences:
        raise EvaluationError(
            f"{root}: annotations are here but no image is",
            "unpack the image archives of the categories",
        )
    return sequences


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
    if view.get("intrinsics_format") != "ndc_isotropic":
        raise EvaluationError(
            f"intrinsics of format {view.get('intrinsics_format')!r}",
            "use the second version of CO3D",
        )
    half = min(width, height) / 2
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
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16:
        raise EvaluationError(f"{path}: is not a 16-bit depth image", "download the file again")
    depth = values.view(np.float16).astype(np.float32) * np.float32(entry["scale_adjustment"])
    mask = root / entry["mask_path"] if entry.get("mask_path") else None
    if mask is not None and mask.exists():
        depth[np.asarray(cv2.imread(str(mask), cv2.IMREAD_UNCHANGED)) == 0] = np.nan
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth
