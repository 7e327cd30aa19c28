"""TUM RGB-D (Sturm et al., IROS 2012) and Bonn RGB-D Dynamic (Palazzolo et al., IROS 2019): the
same files.

A sequence folder holds `rgb.txt`, `depth.txt` (`stamp file`), `groundtruth.txt` (TUM poses) and the
PNGs; depth is registered to colour, 5000 units a metre. Stamps are decimal seconds, read into
integer nanoseconds without passing through a float.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from functools import partial
from pathlib import Path

from flow3r_ros.datasets.files import image_size, need, png_depth, read_lines
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.trajectory import nearest_stamp
from flow3r_ros.types import Camera, Float64
from flow3r_ros.wire.tum import read_tum

CAMERAS = {
    "freiburg1": Camera(
        640,
        480,
        517.3,
        516.5,
        318.6,
        255.3,
        "plumb_bob",
        (0.2624, -0.9531, -0.0054, 0.0026, 1.1633),
    ),
    "freiburg2": Camera(
        640,
        480,
        520.9,
        521.0,
        325.1,
        249.7,
        "plumb_bob",
        (0.2312, -0.7849, -0.0033, -0.0001, 0.9172),
    ),
    "freiburg3": Camera(640, 480, 535.4, 539.2, 320.1, 247.6),
    "bonn": Camera(
        640,
        480,
        542.822841,
        542.576870,
        315.593520,
        237.756098,
        "plumb_bob",
        (0.039903, -0.099343, -0.000730, -0.000144, 0.0),
    ),
}
"""published calibrations of the colour cameras, by a word in the name of the sequence's folder:
cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats (freiburg3 comes undistorted) and the page of
the Bonn data set"""
DEFAULT_CAMERA = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
"""what TUM's page gives for any of its cameras (the default of the Kinect driver)"""
MATCH_NS = 20_000_000
"""largest stamp difference of image, depth and pose, as in TUM's associate.py"""


def read_rgbd(folder: Path) -> Sequence:
    """One sequence folder, every image of `rgb.txt`; depth and pose are the nearest within 20 ms.

    Raises:
        InputError: a file of the sequence is missing or damaged.
        EvaluationError: `groundtruth.txt` is damaged.
    """
    images = _listing(need(folder / "rgb.txt", "list of colour images"), folder)
    if not images:
        raise InputError(f"{folder / 'rgb.txt'}: lists no image", "complete the download")
    depths = _listing(folder / "depth.txt", folder) if (folder / "depth.txt").exists() else []
    stamps, poses = _truth(folder / "groundtruth.txt")
    depth_stamps = [stamp for stamp, _ in depths]
    camera, notes = _camera(folder, next((file for _, file in images if file.exists()), None))
    shots = []
    for stamp, image in images:
        pose = nearest_stamp(stamps, stamp, MATCH_NS)
        depth = nearest_stamp(depth_stamps, stamp, MATCH_NS)
        reader = None
        if depth is not None:
            file = need(depths[depth][1], "depth image named in depth.txt")
            reader = partial(png_depth, file, 5000.0)
        shots.append(Shot(image, stamp, camera, None if pose is None else poses[pose], reader))
    return Sequence(folder.name, tuple(shots), notes)


def _truth(path: Path) -> tuple[list[int], list[Float64]]:
    if not path.exists():
        return [], []
    truth = read_tum(path)
    return [int(stamp) for stamp in truth.stamps_ns], list(truth.poses)


def _camera(folder: Path, image: Path | None) -> tuple[Camera, tuple[str, ...]]:
    """The published calibration at the size of the images, and what had to be assumed."""
    name = folder.name.lower()
    known = next((camera for word, camera in CAMERAS.items() if word in name), None)
    notes = (
        () if known else (f"intrinsics assumed: {folder.name} names none of {', '.join(CAMERAS)}",)
    )
    camera = known or DEFAULT_CAMERA
    if image is None:
        return camera, notes
    width, height = image_size(image)
    if width * camera.height != height * camera.width:
        raise InputError(
            f"{image}: is {width}x{height}; the published calibration is for "
            f"{camera.width}x{camera.height}",
            "use the images as they were published",
        )
    return scaled(camera, width, height), notes


def _listing(path: Path, folder: Path) -> list[tuple[int, Path]]:
    """(stamp in int nanoseconds, file) of every line, in order of stamps."""
    entries = []
    for number, line in read_lines(path):
        try:
            stamp, name = line.split()[:2]
            entries.append((int(Decimal(stamp) * 1_000_000_000), folder / name))
        except (ValueError, InvalidOperation, OverflowError) as error:
            raise InputError(
                f"{path}:{number}: is not `stamp file`", "download the file again"
            ) from error
    return sorted(entries)
