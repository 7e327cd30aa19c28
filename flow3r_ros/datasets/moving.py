"""Moving platforms: KITTI odometry (Geiger et al., CVPR 2012) and EuRoC MAV (Burri et al., IJRR
2016)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import yaml

from flow3r_ros.datasets.files import (
    DOWNLOAD_AGAIN,
    image_size,
    need,
    need_any,
    numbers,
    pinhole_of,
    read_lines,
)
from flow3r_ros.datasets.sequence import Sequence, Shot
from flow3r_ros.datasets.stamps import read_stamps
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import matrix_from_quaternion, rigid
from flow3r_ros.geometry.trajectory import pose_at
from flow3r_ros.types import Camera, Float64

MAX_GAP_NS = 100_000_000
"""EuRoC's states come every 5 ms; no pose is interpolated over a longer gap than this"""
MODELS = {"radial-tangential": "plumb_bob", "equidistant": "equidistant"}
"""EuRoC's names of distortion models and those of `sensor_msgs/CameraInfo`"""


def read_kitti(folder: Path) -> Sequence:
    """A sequence `sequences/NN/{image_2 or image_0,calib.txt,times.txt}`, with its true poses where
    `poses/NN.txt` lies beside `sequences` (00 to 10).

    Poses are those of camera 0; the baseline in `calib.txt` moves them to the camera whose images
    are read. Colour is preferred.

    Raises:
        InputError: a file of the sequence is missing or damaged.
    """
    number = 2 if (folder / "image_2").is_dir() else 0
    images = need_any(folder / f"image_{number}", "*.png", "images image_2 or image_0")
    projection = _projection(need(folder / "calib.txt", "calibration"), number)
    times = read_stamps(need(folder / "times.txt", "stamps"))
    if len(times) != len(images):
        raise InputError(
            f"{folder}: {len(images)} images, {len(times)} stamps", "download the sequence again"
        )
    camera = pinhole_of(*image_size(images[0]), projection)
    offset = rigid(np.eye(3), -np.linalg.inv(projection[:, :3]) @ projection[:, 3])
    truth: list[Float64 | None] = [None] * len(images)
    poses = folder.absolute().parent.parent / "poses" / f"{folder.name}.txt"
    if poses.exists():
        table = numbers(poses)
        if table.shape != (len(images), 12):
            raise InputError(
                f"{poses}: {table.shape[0]} poses of {table.shape[1]} numbers for {len(images)} "
                "images",
                "download the poses again",
            )
        truth = [rigid(row[:, :3], row[:, 3]) @ offset for row in table.reshape(-1, 3, 4)]
    shots = [
        Shot(image, time, camera, pose)
        for image, time, pose in zip(images, times, truth, strict=True)
    ]
    return Sequence(folder.name, tuple(shots))


def _projection(path: Path, number: int) -> Float64:
    """P of camera `number`, `[3, 4]` pixels."""
    for line_number, line in read_lines(path):
        key, _, values = line.partition(":")
        if key.strip() != f"P{number}":
            continue
        try:
            matrix = np.array([float(value) for value in values.split()]).reshape(3, 4)
            np.linalg.inv(matrix[:, :3])
            return matrix
        except ValueError as error:  # a singular matrix too
            raise InputError(
                f"{path}:{line_number}: is not a projection matrix of 12 numbers", DOWNLOAD_AGAIN
            ) from error
    raise InputError(f"{path}: has no P{number}", "download the calibration again")


def read_euroc(folder: Path) -> Sequence:
    """A sequence folder with `mav0/cam0/{data.csv,sensor.yaml,data/STAMP.png}` and
    `mav0/state_groundtruth_estimate0/data.csv`; `folder` may be `mav0` itself.

    The body's true pose is interpolated to the image stamps and moved to the camera by `T_BS`;
    images outside have none.

    Raises:
        InputError: a file of the sequence is missing or damaged.
    """
    mav = folder / "mav0" if (folder / "mav0").is_dir() else folder
    camera, extrinsics = _sensor(need(mav / "cam0" / "sensor.yaml", "camera calibration"))
    states = mav / "state_groundtruth_estimate0" / "data.csv"
    stamps, bodies = _states(states) if states.exists() else ([], [])
    listing, shots = need(mav / "cam0" / "data.csv", "list of images"), []
    for number, line in read_lines(listing):
        stamp, _, name = (part.strip() for part in line.partition(","))
        if not stamp.isdigit() or not name:
            raise InputError(f"{listing}:{number}: is not `stamp,file`", DOWNLOAD_AGAIN)
        body = pose_at(stamps, bodies, int(stamp), MAX_GAP_NS)
        image = need(mav / "cam0" / "data" / name, "image named in data.csv")
        pose = None if body is None else body @ extrinsics
        shots.append(Shot(image, int(stamp), camera, pose))
    if not shots:
        raise InputError(f"{listing}: lists no image", "complete the download")
    return Sequence(mav.absolute().parent.name, tuple(shots))


def _sensor(path: Path) -> tuple[Camera, Float64]:
    """Intrinsics of cam0 and the camera's pose in the body `[4, 4]`."""
    try:
        sensor: Any = yaml.safe_load(path.read_text(encoding="utf-8").removeprefix("%YAML:1.0"))
        extrinsics = np.array(sensor["T_BS"]["data"], np.float64).reshape(4, 4)
        width, height = (int(value) for value in sensor["resolution"])
        fx, fy, cx, cy = (float(value) for value in sensor["intrinsics"])
        coefficients = tuple(float(value) for value in sensor["distortion_coefficients"])
        model = str(sensor["distortion_model"])
    except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InputError(
            f"{path}: is not a EuRoC camera calibration ({reason})", DOWNLOAD_AGAIN
        ) from error
    if model not in MODELS:
        raise InputError(
            f"{path}: distortion model {model!r} is not known", f"known: {', '.join(MODELS)}"
        )
    return Camera(width, height, fx, fy, cx, cy, MODELS[model], coefficients), extrinsics


def _states(path: Path) -> tuple[list[int], list[Float64]]:
    """Stamps in nanoseconds and body-to-world poses; columns: stamp, p xyz, q wxyz, ..."""
    stamps, poses = [], []
    for number, line in read_lines(path):
        fields = line.split(",")
        try:
            x, y, z, qw, qx, qy, qz = (float(value) for value in fields[1:8])
            if not np.isfinite([x, y, z]).all() or not 0.5 < np.linalg.norm([qx, qy, qz, qw]) < 2:
                raise ValueError("not a pose")
            stamps.append(int(fields[0]))
            poses.append(rigid(matrix_from_quaternion([qx, qy, qz, qw]), [x, y, z]))
        except ValueError as error:
            raise InputError(
                f"{path}:{number}: is not `stamp, position, quaternion, ...`", DOWNLOAD_AGAIN
            ) from error
    return stamps, poses
