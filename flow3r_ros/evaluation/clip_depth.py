"""Depth and confidence of a run folder (`flow3r run`) against the true depth of the clip it came
from, beside the answer that needs no image."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.calibration import Calibration
from flow3r_ros.evaluation.depth import evaluate_depth
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.geometry.depth_map import registered_depth, resample_depth
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Camera, Float32
from flow3r_ros.wire.tum import read_tum

NEAR_M, FAR_M = 0.1, 10.0
KINECT_OFFSET = (-0.0225, 0.0, 0.0)
"""from the depth lens to the colour lens of a Kinect, metres: where depth edges of 20 RedKitchen
frames fall best on image edges (3.17 times the mean gradient; 1.70 uncorrected, 1.32 at +2 cm)"""


def measure_depth(clip: Path, folder: Path) -> dict[str, Any]:
    """Depth of a run against the clip's own depth maps (`depth.txt`: frame, file), median-aligned
    per frame.

    Where the truth was taken by another lens (`depth_intrinsics` in camera.json), its points are
    moved into the estimate's view: by `depth_offset` (metres, from the depth lens's optical frame
    to the colour lens's) of camera.json, or by `KINECT_OFFSET` where depth is said not to be
    registered and no offset is given.

    Returns:
        scores of `evaluate_depth`, and those of one depth for every pixel under `constant`;
        `depth_offset` says how points were moved, where they were; empty where the clip has no
        depth.

    Raises:
        EvaluationError: no depth map of the run belongs to a frame with true depth.
    """
    pairs = _with_truth(clip, folder)
    if pairs is None:
        return {}
    guess = np.stack([estimate for _, estimate, _ in pairs])
    known = np.stack([truth for _, _, truth in pairs])
    offset = _offset(_meta(clip))
    return {
        **_score(guess, known),
        "constant": _score(np.where(guess > 0, np.float32(1), guess), known),
        **({} if offset is None else {"depth_offset": list(offset)}),
    }


def measure_confidence(clip: Path, run: Path) -> dict[str, Any]:
    """Calibration of the confidence of a run folder that was written with `--save-confidence`,
    against the clip's own depth maps as in `measure_depth`; only depths of NEAR_M to FAR_M count.

    Returns:
        `evaluation.calibration.Calibration.summary`; empty where the clip has no depth.

    Raises:
        EvaluationError: no depth map of the run belongs to a frame with true depth.
    """
    calibration = Calibration()
    pairs = _with_truth(clip, run / "depth")
    if pairs is None:
        return {}
    for name, estimate, truth in pairs:
        near = np.where((truth >= NEAR_M) & (truth <= FAR_M), truth, np.float32(np.nan))
        calibration.add(_read(run / "confidence" / name) / np.float32(255), estimate, near)
    return calibration.summary()


def _with_truth(clip: Path, folder: Path) -> list[tuple[str, Float32, Float32]] | None:
    """File name, depth of the run (its own units, 0 invalid) and true depth (metres, NaN unknown)
    of the frames that have both; None where the clip has no depth."""
    if not (clip / "depth.txt").exists():
        return None
    ours = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
    truths = true_depth(clip, Camera(**ours["camera"]))
    if truths is None:
        return None
    files = {_frame_index(file): file for file in folder.glob("*.png")}
    pairs = [
        (files[index].name, _read(files[index]) / np.float32(ours["scale"]), truth())
        for index, truth in truths.items()
        if index in files
    ]
    if not pairs:
        raise EvaluationError(
            f"{clip.name}: no depth map of the run belongs to a frame with true depth"
        )
    return pairs


def true_poses(clip: Path) -> Trajectory | None:
    """The `groundtruth.tum` of a clip; None without one. Raises what `wire.tum` raises."""
    path = clip / "groundtruth.tum"
    return read_tum(path) if path.exists() else None


def true_depth(clip: Path, view: Camera) -> dict[int, Callable[[], Float32]] | None:
    """By frame number what reads the true depth of a clip as `view` sees it, float32 `[h, w]`
    metres, NaN unknown; None where the clip has no depth. See `measure_depth` for clips whose depth
    was taken by another lens."""
    listing, colour = clip / "depth.txt", load_camera(clip / "camera.json")
    if not listing.exists() or colour is None:
        return None
    meta = _meta(clip)
    lens = meta.get("depth_intrinsics")
    source = Camera(meta["width"], meta["height"], **lens) if lens else colour
    offset = _offset(meta)

    def read(path: Path) -> Float32:
        raw = np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED))
        metres = np.where(raw > 0, raw / float(meta["depth_scale"]), np.nan).astype(np.float32)
        if offset is None:
            return resample_depth(metres, source, view)
        return registered_depth(metres, source, view, offset)

    lines = (line.split()[:2] for line in listing.read_text(encoding="utf-8").splitlines())
    named = {int(line[0]): clip / line[1] for line in lines if len(line) == 2 and line[0] != "#"}
    return {index: partial(read, path) for index, path in named.items() if path.exists()}


def _meta(clip: Path) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((clip / "camera.json").read_text(encoding="utf-8"))
    return meta


def _offset(meta: dict[str, Any]) -> tuple[float, float, float] | None:
    """How points of the depth lens move into the colour lens's frame, metres; None = not at all."""
    given = meta.get("depth_offset")
    if given is not None:
        return (float(given[0]), float(given[1]), float(given[2]))
    return KINECT_OFFSET if meta.get("depth_registered_to_color") is False else None


def median_depth(folder: Path) -> float | None:
    """Median of the depths of up to ten frames of a run, in its own units."""
    files = sorted(folder.glob("*.png"))
    if not files:
        return None
    scale = float(json.loads((folder / "meta.json").read_text(encoding="utf-8"))["scale"])
    values = [_read(path) for path in files[:: max(1, len(files) // 10)]]
    known = np.concatenate([value[value > 0] for value in values])
    return float(np.median(known)) / scale if len(known) else None


def _score(estimate: Float32, truth: Float32) -> dict[str, Any]:
    return evaluate_depth(estimate, truth, "median", "frame", minimum=NEAR_M, maximum=FAR_M)


def _read(path: Path) -> Float32:
    return np.asarray(cv2.imread(str(path), cv2.IMREAD_UNCHANGED), np.float32)


def _frame_index(path: Path) -> int:
    digits = "".join(letter for letter in path.stem if letter.isdigit())
    return int(digits) if digits else -1
