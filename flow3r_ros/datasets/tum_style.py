"""TUM RGB-D dynamics (Sturm et al., IROS 2012) and Bonn RGB-D Dynamic (Palazzolo et al., IROS
2019): the same files.

A sequence folder holds `rgb.txt`, `depth.txt` (`stamp file`), `groundtruth.txt` (TUM poses) and the
PNGs; depth is 5000 units a metre.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import partial
from pathlib import Path

from flow3r_ros.datasets.sequence import Sequence, Shot, image_size, need, need_any, png_depth
from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Camera
from flow3r_ros.wire.tum import read_tum

TUM_FREIBURG3 = Camera(640, 480, 535.4, 539.2, 320.1, 247.6)
"""published calibration of the freiburg3 camera, whose images come undistorted"""
BONN = Camera(
    640,
    480,
    542.822841,
    542.576870,
    315.593520,
    237.756098,
    "plumb_bob",
    (0.039903, -0.099343, -0.000730, -0.000144, 0.0),
)
"""published calibration of the Bonn colour camera"""
MATCH_S = 0.02
"""largest stamp difference of image, depth and pose, as in TUM's associate.py"""


def tum_dynamics(root: Path) -> list[Sequence]:
    """The eight dynamic freiburg3 sequences (sitting and walking)."""
    folders = need_any(
        root,
        "rgbd_dataset_freiburg3_*",
        "folders of the dynamic sequences, rgbd_dataset_freiburg3_{sitting,walking}_*",
    )
    dynamic = [folder for folder in folders if folder.name.split("_")[3] in ("sitting", "walking")]
    if not dynamic:
        raise EvaluationError(
            f"{root}: has no sequence named rgbd_dataset_freiburg3_sitting_* or ..._walking_*",
            "download the dynamic ones",
        )
    return [read_rgbd(folder, TUM_FREIBURG3) for folder in dynamic]


def bonn(root: Path) -> list[Sequence]:
    """Bonn's sequences; pi3 and MonST3R use balloon2, crowd2, crowd3, person_tracking2 and
    synchronous, frames 30 to 140."""
    base = root / "rgbd_bonn_dataset" if (root / "rgbd_bonn_dataset").is_dir() else root
    names = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
    folders = need_any(base, "rgbd_bonn_*", "sequence folders, rgbd_bonn_<name>")
    chosen = [
        folder for folder in folders if folder.name.removeprefix("rgbd_bonn_") in names
    ] or folders
    sequences = []
    for folder in chosen:
        sequence = read_rgbd(folder, BONN)
        sequences.append(
            sequence.only(list(range(30, 140))) if len(sequence.shots) >= 140 else sequence
        )
    return sequences


def read_rgbd(folder: Path, camera: Camera) -> Sequence:
    """One sequence folder; images without a pose or depth within 20 ms are left out and counted.

    Raises:
        EvaluationError: a file of the sequence is missing or damaged.
    """
    images = _listing(need(folder / "rgb.txt", "list of colour images"), folder)
    depths = _listing(need(folder / "depth.txt", "list of depth images"), folder)
    truth = read_tum(need(folder / "groundtruth.txt", "true poses"))
    stamps = [int(stamp) for stamp in truth.stamps_ns]
    shots, lost = [], 0
    for stamp, image in images:
        pose, depth = _nearest(stamps, stamp), _nearest([entry[0] for entry in depths], stamp)
        if pose is None or depth is None:
            lost += 1
            continue
        need(image, "colour image named in rgb.txt")
        file = need(depths[depth][1], "depth image named in depth.txt")
        shots.append(
            Shot(image, stamp, camera, truth.poses[pose], partial(png_depth, file, 5000.0))
        )
    if not shots:
        raise EvaluationError(f"{folder}: no image has a pose and a depth within {MATCH_S} s")
    width, height = image_size(shots[0].image)
    if (width, height) != (camera.width, camera.height):
        raise EvaluationError(
            f"{shots[0].image}: is {width}x{height}; the published calibration is for "
            f"{camera.width}x{camera.height}"
        )
    notes = (f"{lost} images without pose or depth within {MATCH_S} s",) if lost else ()
    return Sequence(folder.name, tuple(shots), notes)


def _listing(path: Path, folder: Path) -> list[tuple[int, Path]]:
    entries = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if line.startswith("#") or not line.strip():
            continue
        try:
            stamp, name = line.split()[:2]
            entries.append((round(float(stamp) * 1e9), folder / name))
        except ValueError as error:
            raise EvaluationError(f"{path}:{number}: is not `stamp file`") from error
    return sorted(entries)


def _nearest(stamps: list[int], stamp: int) -> int | None:
    place = bisect_left(stamps, stamp)
    near = min(
        (i for i in (place - 1, place) if 0 <= i < len(stamps)),
        key=lambda i: abs(stamps[i] - stamp),
        default=None,
    )
    return near if near is not None and abs(stamps[near] - stamp) <= MATCH_S * 1e9 else None
