"""Benchmarks of moving platforms: KITTI odometry (Geiger et al., CVPR 2012) and EuRoC MAV (Burri et
al., IJRR 2016)."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import yaml

from flow3r_ros.datasets.sequence import (
    Sequence,
    Shot,
    image_size,
    need,
    need_any,
    numbers,
    pinhole_of,
)
from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.lie import interpolate, matrix_from_quaternion, rigid
from flow3r_ros.types import Camera, Float64


def kitti_odometry(root: Path) -> list[Sequence]:
    """Sequences with poses (00 to 10): `sequences/NN/{image_2 or image_0,calib.txt,times.txt}` and
    `poses/NN.txt`.

    Poses are those of camera 0; the baseline in `calib.txt` moves them to the camera whose images
    are read.
    """
    base = root / "dataset" if (root / "dataset" / "sequences").is_dir() else root
    sequences = []
    for poses in need_any(base / "poses", "*.txt", "true poses, poses/NN.txt"):
        folder = base / "sequences" / poses.stem
        if folder.is_dir():
            sequences.append(_kitti_sequence(folder, poses))
    if not sequences:
        raise EvaluationError(
            f"{base / 'sequences'}: no sequence with poses is present", "unpack the image archive"
        )
    return sequences


def _kitti_sequence(folder: Path, poses: Path) -> Sequence:
    number = 2 if (folder / "image_2").is_dir() else 0
    images = need_any(folder / f"image_{number}", "*.png", "images image_2 or image_0")
    calibration = {}
    for line in need(folder / "calib.txt", "calibration").read_text(encoding="utf-8").splitlines():
        key, _, values = line.partition(":")
        if values:
            calibration[key.strip()] = np.array([float(value) for value in values.split()]).reshape(
                3, 4
            )
    if f"P{number}" not in calibration:
        raise EvaluationError(
            f"{folder / 'calib.txt'}: has no P{number}", "download the calibration again"
        )
    projection = calibration[f"P{number}"]
    table = numbers(poses)
    times = numbers(need(folder / "times.txt", "stamps")).ravel()
    if not len(times) == len(table) == len(images) or table.shape[1] != 12:
        raise EvaluationError(
            f"{folder}: {len(images)} images, {len(times)} stamps, {len(table)} poses",
            "download the sequence again",
        )
    width, height = image_size(images[0])
    camera = pinhole_of(width, height, projection)
    offset = rigid(np.eye(3), -np.linalg.inv(projection[:, :3]) @ projection[:, 3])
    truth = [rigid(row.reshape(3, 4)[:, :3], row.reshape(3, 4)[:, 3]) @ offset for row in table]
    shots = [
        Shot(image, round(time * 1e9), camera, pose)
        for image, time, pose in zip(images, times, truth, strict=True)
    ]
    return Sequence(folder.name, tuple(shots))


def euroc(root: Path) -> list[Sequence]:
    """Sequences `NAME/mav0` with `cam0/{data.csv,sensor.yaml,data/STAMP.png}` and
    `state_groundtruth_estimate0/data.csv`.

    The body's true pose is interpolated to the image stamps and moved to the camera by `T_BS`;
    images outside are left out and counted.
    """
    return [
        _euroc_sequence(path.parent.parent)
        for path in need_any(root, "*/mav0/cam0", "sequence folders NAME/mav0")
    ]


def _euroc_sequence(folder: Path) -> Sequence:
    mav = folder / "mav0"
    sensor = yaml.safe_load(
        need(mav / "cam0" / "sensor.yaml", "camera calibration")
        .read_text(encoding="utf-8")
        .removeprefix("%YAML:1.0")
    )
    extrinsics = np.array(sensor["T_BS"]["data"], np.float64).reshape(4, 4)
    width, height = sensor["resolution"]
    models = {"radial-tangential": "plumb_bob", "equidistant": "equidistant"}
    if sensor["distortion_model"] not in models:
        raise EvaluationError(
            f"{mav / 'cam0' / 'sensor.yaml'}: distortion model "
            f"{sensor['distortion_model']!r} is not known"
        )
    coefficients = tuple(float(value) for value in sensor["distortion_coefficients"])
    fx, fy, cx, cy = (float(value) for value in sensor["intrinsics"])
    camera = Camera(
        int(width), int(height), fx, fy, cx, cy, models[sensor["distortion_model"]], coefficients
    )
    stamps, bodies = _states(need(mav / "state_groundtruth_estimate0" / "data.csv", "true states"))
    shots, outside = [], 0
    for line in (
        need(mav / "cam0" / "data.csv", "list of images").read_text(encoding="utf-8").splitlines()
    ):
        if line.startswith("#") or not line.strip():
            continue
        stamp, name = (part.strip() for part in line.split(",")[:2])
        body = _at(stamps, bodies, int(stamp))
        if body is None:
            outside += 1
            continue
        shots.append(
            Shot(
                need(mav / "cam0" / "data" / name, "image named in data.csv"),
                int(stamp),
                camera,
                body @ extrinsics,
            )
        )
    if not shots:
        raise EvaluationError(f"{folder}: no image lies within the stamps of the ground truth")
    return Sequence(
        folder.name,
        tuple(shots),
        (f"{outside} images outside the ground truth",) if outside else (),
    )


def _states(path: Path) -> tuple[list[int], list[Float64]]:
    """Stamps in nanoseconds and body-to-world poses; columns: stamp, p xyz, q wxyz, ..."""
    stamps, poses = [], []
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith("#") or not line.strip():
            continue
        fields = line.split(",")
        x, y, z, qw, qx, qy, qz = (float(value) for value in fields[1:8])
        stamps.append(int(fields[0]))
        poses.append(rigid(matrix_from_quaternion([qx, qy, qz, qw]), [x, y, z]))
    return stamps, poses


def _at(stamps: list[int], poses: list[Float64], stamp: int) -> Float64 | None:
    right = int(np.searchsorted(stamps, stamp))
    if right < len(stamps) and stamps[right] == stamp:
        return poses[right]
    if right in (0, len(stamps)) or stamps[right] - stamps[right - 1] > 100_000_000:
        return None
    share = (stamp - stamps[right - 1]) / (stamps[right] - stamps[right - 1])
    return interpolate(poses[right - 1], poses[right], share)
