"""Where the pictures of public data sets lie below the folder that people name: TUM RGB-D and Bonn,
EuRoC, KITTI raw and odometry, 7-Scenes, ScanNet, TartanAir, COLMAP and NeRF exports.

Each answer comes with the data set's own stamps, and the camera where its calibration lies there.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.formats import FORMATS
from flow3r_ros.datasets.pictures import Listing, images_in, list_pictures
from flow3r_ros.errors import EvaluationError, InputError
from flow3r_ros.types import Camera, Float64

FOLDERS = (
    "frames",
    "images",
    "rgb",
    "color",
    "colour",
    "image_2",
    "image_0",
    "image_left",
    "data",
    "image_02/data",
    "image_00/data",
    "mav0/cam0/data",
    "cam0/data",
)
"""sub-folders that hold the pictures of the one sequence around them, the first that exists"""


def find_pictures(folder: Path) -> tuple[Path, Listing] | None:
    """The pictures of one sequence, in `folder` or in the sub-folder where its data set keeps them;
    None when there are none.

    Raises InputError when a list of stamps beside them is damaged.
    """
    published = _published(folder)
    if published is not None:
        return folder, published
    for name in ("", *FOLDERS):
        place = folder / name if name else folder
        if place.is_dir() and images_in(place):
            listing = list_pictures(place)
            camera = _kitti_camera(place)
            return place, Listing(listing.files, listing.stamps_ns, camera, listing.notes)
    return None


def _published(folder: Path) -> Listing | None:
    """The pictures, stamps and calibration of a public format's sequence, by its reader; None where
    `folder` is none, or lacks what its reader needs (then its pictures alone are read)."""
    known = next((known for known in FORMATS if known.matches(folder)), None)
    try:
        sequences = known.read(folder) if known else []
    except (InputError, EvaluationError):
        return None
    if len(sequences) != 1 or not sequences[0].shots:
        return None
    shots = sequences[0].shots
    files = tuple(shot.image for shot in shots)
    stamps = tuple(shot.stamp_ns for shot in shots)
    return Listing(files, stamps, shots[0].camera, sequences[0].notes)


def _kitti_camera(place: Path) -> Camera | None:
    """The rectified camera of KITTI raw, from `calib_cam_to_cam.txt` of its day."""
    place = place.absolute()
    raw = re.fullmatch(r"image_(\d\d)", place.parent.name)
    if raw and place.name == "data":
        for above in list(place.parents)[1:4]:
            values = _table(above / "calib_cam_to_cam.txt")
            if f"P_rect_{raw[1]}" in values and f"S_rect_{raw[1]}" in values:
                width, height = (int(value) for value in values[f"S_rect_{raw[1]}"])
                return _pinhole(width, height, values[f"P_rect_{raw[1]}"])
    return None


def _table(path: Path) -> dict[str, Float64]:
    """`key: numbers` lines; empty when there is no such file."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for key, _, numbers in (line.partition(":") for line in lines):
        try:
            found[key.strip()] = np.array([float(number) for number in numbers.split()])
        except ValueError:
            continue
    return found


def _pinhole(width: int, height: int, projection: Float64) -> Camera | None:
    if projection.size != 12:
        return None
    P = projection.reshape(3, 4)
    fx, fy, cx, cy = (float(P[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(width, height, fx, fy, cx, cy)
