"""Labelled recordings as they lie on disk: TUM RGB-D, 7-Scenes, ScanNet (exported), TartanAir,
CO3Dv2.

Each adapter gives the same thing: a `LabelledSequence` whose `read(index)` decodes one frame with
metric depth (NaN = invalid), its camera-to-world pose in the optical frame and its pinhole. Frames
without a finite pose are left out when the sequence is opened.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import Rectifier, scaled
from flow3r_ros.geometry.flow import nearest_resize
from flow3r_ros.geometry.lie import invert, matrix_from_quaternion, rigid
from flow3r_ros.types import Camera, Float32, Float64, UInt8


@dataclass(frozen=True)
class LabelledFrame:
    """`rgb` uint8 `[H, W, 3]`; `depth` float32 `[H, W]` metres along z, NaN = invalid; `pose`
    camera-to-world `[4, 4]`; pinhole."""

    rgb: UInt8
    depth: Float32
    pose: Float64
    camera: Camera


@dataclass(frozen=True)
class LabelledSequence:
    """A recording with depth and poses: `readers[k]()` decodes frame k, `stamps_ns[k]` is its time
    (or index where none exists)."""

    name: str
    readers: tuple[Callable[[], LabelledFrame], ...]
    stamps_ns: tuple[int, ...]

    def __len__(self) -> int:
        return len(self.readers)

    def read(self, index: int) -> LabelledFrame:
        """Decode one frame. Raises InputError when a file cannot be read."""
        return self.readers[index]()


# https://cvg.cit.tum.de/data/datasets/rgbd-dataset/file_formats: depth / 5000, intrinsics per
# camera, distortion k1 k2 p1 p2 k3
_TUM_CAMERAS = {
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
}
_TUM_DEFAULT = Camera(640, 480, 525.0, 525.0, 319.5, 239.5)
_TUM_MAX_GAP_NS = 20_000_000


def open_tum(folder: Path) -> LabelledSequence:
    """TUM RGB-D: `rgb.txt`, `depth.txt`, `groundtruth.txt`; nearest stamps within 20 ms are
    associated."""
    colours, depths, truth = (
        _tum_rows(folder / name) for name in ("rgb.txt", "depth.txt", "groundtruth.txt")
    )
    camera = next(
        (c for name, c in _TUM_CAMERAS.items() if name in folder.name.lower()), _TUM_DEFAULT
    )
    readers, stamps = [], []
    for stamp, row in colours:
        depth, pose = _nearest(depths, stamp), _nearest(truth, stamp)
        if depth is None or pose is None:
            continue
        values = [float(value) for value in pose]
        T = rigid(matrix_from_quaternion(np.array(values[3:7])), values[:3])
        readers.append(
            partial(_read_pngs, folder / row[0], folder / depth[0], 1 / 5000.0, T, camera, 0)
        )
        stamps.append(stamp)
    return _sequence(folder, readers, stamps)


def _tum_rows(path: Path) -> list[tuple[int, list[str]]]:
    rows = [line.split() for line in _lines(path) if line.strip() and not line.startswith("#")]
    return sorted((int(Decimal(row[0]) * 1_000_000_000), row[1:]) for row in rows)


def _nearest(rows: list[tuple[int, list[str]]], stamp: int) -> list[str] | None:
    if not rows:
        return None
    near = int(np.searchsorted([row[0] for row in rows], stamp))
    best = min(rows[max(0, near - 1) : near + 1] or rows[-1:], key=lambda row: abs(row[0] - stamp))
    return best[1] if abs(best[0] - stamp) <= _TUM_MAX_GAP_NS else None


_SEVEN_SCENES_CAMERA = Camera(640, 480, 585.0, 585.0, 320.0, 240.0)


def open_seven_scenes(folder: Path) -> LabelledSequence:
    """7-Scenes sequence folder: `frame-XXXXXX.color.png`, `.depth.png` (millimetres, 65535 =
    invalid), `.pose.txt`; f = 585."""
    readers = []
    for colour in sorted(folder.glob("frame-*.color.png")):
        stem = str(colour)[: -len(".color.png")]
        pose = _matrix(Path(f"{stem}.pose.txt"))
        if pose is not None:
            readers.append(
                partial(
                    _read_pngs,
                    colour,
                    Path(f"{stem}.depth.png"),
                    1e-3,
                    pose,
                    _SEVEN_SCENES_CAMERA,
                    65535,
                )
            )
    return _sequence(folder, readers)


def open_scannet(folder: Path) -> LabelledSequence:
    """ScanNet scene as its SensReader exports it: `color/N.jpg`, `depth/N.png` (mm), `pose/N.txt`,
    `intrinsic/intrinsic_depth.txt`.

    Colour is resized to the depth image, whose intrinsics hold for both; poses that are not finite
    (lost tracking) are left out.
    """
    K = _matrix(folder / "intrinsic" / "intrinsic_depth.txt")
    if K is None:
        raise InputError(
            f"{folder}/intrinsic/intrinsic_depth.txt: not a 4x4 matrix",
            "export the scene with SensReader",
        )
    readers = []
    for colour in sorted((folder / "color").glob("*.jpg"), key=lambda path: int(path.stem)):
        pose = _matrix(folder / "pose" / f"{colour.stem}.txt")
        if pose is not None:
            readers.append(
                partial(_read_scannet, colour, folder / "depth" / f"{colour.stem}.png", pose, K)
            )
    return _sequence(folder, readers)


def _read_scannet(colour: Path, depth_path: Path, pose: Float64, K: Float64) -> LabelledFrame:
    depth = _depth_png(depth_path, 1e-3, 0)
    h, w = depth.shape
    camera = Camera(w, h, float(K[0, 0]), float(K[1, 1]), float(K[0, 2]), float(K[1, 2]))
    rgb = np.asarray(cv2.resize(_image(colour), (w, h), interpolation=cv2.INTER_AREA), np.uint8)
    return LabelledFrame(rgb, depth, pose, camera)


# TartanAir: all cameras 640x480, fx = fy = 320, cx = 320, cy = 240; poses in NED body axes (x
# forward, y right, z down)
_TARTANAIR_CAMERA = Camera(640, 480, 320.0, 320.0, 320.0, 240.0)
_NED_FROM_OPTICAL = np.array([[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])
_TARTANAIR_SKY = 1000.0


def open_tartanair(folder: Path) -> LabelledSequence:
    """TartanAir trajectory (`P000`): `image_left/N_left.png`, `depth_left/N_left_depth.npy`,
    `pose_left.txt` (tx ty tz qx qy qz qw, NED).

    The world stays NED, the camera axes become optical; depth beyond 1 km is sky and invalid.
    """
    poses = [
        [float(value) for value in line.split()]
        for line in _lines(folder / "pose_left.txt")
        if line.strip()
    ]
    readers = []
    for colour, row in zip(sorted((folder / "image_left").glob("*_left.png")), poses, strict=False):
        pose = rigid(matrix_from_quaternion(np.array(row[3:7])) @ _NED_FROM_OPTICAL, row[:3])
        depth = folder / "depth_left" / f"{colour.stem}_depth.npy"
        readers.append(partial(_read_tartanair, colour, depth, pose))
    return _sequence(folder, readers)


def _read_tartanair(colour: Path, depth_path: Path, pose: Float64) -> LabelledFrame:
    rgb = _image(colour)
    try:
        depth = np.load(depth_path, allow_pickle=False).astype(np.float32)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{depth_path}: cannot be read as a depth array",
            "leave this sequence out or fetch it again",
        ) from error
    depth[~((depth > 0) & (depth < _TARTANAIR_SKY))] = np.nan
    return LabelledFrame(rgb, depth, pose, scaled(_TARTANAIR_CAMERA, rgb.shape[1], rgb.shape[0]))


def open_co3d(category: Path) -> list[LabelledSequence]:
    """CO3Dv2 category folder: `frame_annotations.jgz` names image, depth (float16 bits in a 16-bit
    PNG), mask, viewpoint per frame.

    PyTorch3D viewpoints map world to camera as row vectors (`x_cam = x R + T`, x left, y up), with
    focal length and principal point in NDC of `intrinsics_format`; both become an optical-frame
    pinhole and a camera-to-world pose.
    """
    path = category / "frame_annotations.jgz"
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            annotations = json.load(file)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read ({error})", "give a CO3Dv2 category folder"
        ) from error
    sequences: dict[str, list[Callable[[], LabelledFrame]]] = {}
    for frame in sorted(
        annotations, key=lambda item: (item["sequence_name"], item["frame_number"])
    ):
        sequences.setdefault(frame["sequence_name"], []).append(
            partial(_read_co3d, category.parent, frame)
        )
    return [
        LabelledSequence(f"{category.name}/{name}", tuple(readers), tuple(range(len(readers))))
        for name, readers in sequences.items()
    ]


def _read_co3d(root: Path, frame: dict[str, dict[str, object]]) -> LabelledFrame:
    rgb = _image(root / str(frame["image"]["path"]))
    h, w = rgb.shape[:2]
    viewpoint = frame["viewpoint"]
    focal, principal = (
        np.array(viewpoint["focal_length"], float),
        np.array(viewpoint["principal_point"], float),
    )
    isotropic = viewpoint.get("intrinsics_format", "ndc_norm_image_bounds") == "ndc_isotropic"
    half = np.array([min(h, w), min(h, w)] if isotropic else [w, h]) / 2.0
    fx, fy = focal * half
    cx, cy = (
        np.array([w, h]) / 2.0 - principal * half - 0.5
    )  # NDC centre is the image centre; our pixel centres are integers
    flip = np.diag([-1.0, -1.0, 1.0])
    R, T = np.array(viewpoint["R"], float), np.array(viewpoint["T"], float)
    pose = invert(rigid(flip @ R.T, flip @ T))
    depth = _co3d_depth(
        root / str(frame["depth"]["path"]), float(str(frame["depth"]["scale_adjustment"]))
    )
    depth = nearest_resize(depth, w, h)
    return LabelledFrame(rgb, depth, pose, Camera(w, h, float(fx), float(fy), float(cx), float(cy)))


def _co3d_depth(path: Path, adjustment: float) -> Float32:
    bits = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if bits is None or bits.dtype != np.uint16:
        raise InputError(
            f"{path}: not a 16-bit depth image", "leave this sequence out or fetch it again"
        )
    depth = np.ascontiguousarray(bits).view(np.float16).astype(np.float32) * np.float32(adjustment)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return np.asarray(depth)


def _sequence(
    folder: Path, readers: Sequence[Callable[[], LabelledFrame]], stamps: list[int] | None = None
) -> LabelledSequence:
    if not readers:
        raise InputError(
            f"{folder}: no frame with image, depth and pose", "check the folder and its format"
        )
    return LabelledSequence(
        folder.name, tuple(readers), tuple(stamps if stamps is not None else range(len(readers)))
    )


def _read_pngs(
    colour: Path, depth_path: Path, unit: float, pose: Float64, camera: Camera, invalid: int
) -> LabelledFrame:
    rgb, depth = _image(colour), _depth_png(depth_path, unit, invalid)
    h, w = rgb.shape[:2]
    rectifier = Rectifier(scaled(camera, w, h))
    if camera.distortion:
        depth = _rectify_depth(depth, rectifier)
    return LabelledFrame(
        rectifier.apply(rgb), nearest_resize(depth, w, h), pose, rectifier.rectified
    )


def _rectify_depth(depth: Float32, rectifier: Rectifier) -> Float32:
    """Nearest-neighbour undistortion, so that depth edges stay edges."""
    camera, rectified = rectifier.camera, rectifier.rectified
    maps = cv2.initUndistortRectifyMap(
        camera.matrix,
        np.array(camera.distortion),
        np.eye(3),
        rectified.matrix,
        (camera.width, camera.height),
        cv2.CV_32FC1,
    )
    return np.asarray(
        cv2.remap(depth, *maps, interpolation=cv2.INTER_NEAREST, borderValue=float("nan")),
        np.float32,
    )


def _image(path: Path) -> UInt8:
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(
            f"{path}: cannot be read as an image", "leave this sequence out or fetch it again"
        )
    return np.asarray(cv2.cvtColor(image, cv2.COLOR_BGR2RGB), np.uint8)


def _depth_png(path: Path, unit: float, invalid: int) -> Float32:
    raw = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if raw is None or raw.dtype != np.uint16:
        raise InputError(
            f"{path}: not a 16-bit depth image", "leave this sequence out or fetch it again"
        )
    depth = raw.astype(np.float32) * np.float32(unit)
    depth[(raw == 0) | (raw == invalid)] = np.nan
    return np.asarray(depth)


def _matrix(path: Path) -> Float64 | None:
    """A 4x4 matrix from text; None when it is not finite. Raises InputError when the file cannot be
    read."""
    try:
        matrix = np.loadtxt(path, dtype=np.float64)
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: cannot be read as a matrix", "check the folder and its format"
        ) from error
    return matrix if matrix.shape == (4, 4) and bool(np.isfinite(matrix).all()) else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror})", "check the folder and its format"
        ) from error
