"""What the readers of public formats share: pieces of a download that must exist, images, depth
images and tables of numbers, each refused in one line that names the file."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.errors import InputError, cause_of
from flow3r_ros.types import Camera, Float32, Float64, UInt8

DOWNLOAD_AGAIN = "download the file again or leave this sequence out"


def need(path: Path, what: str) -> Path:
    """The path, which must exist.

    Raises:
        InputError: it is missing; the message names the piece of the download.
    """
    if not path.exists():
        raise InputError(
            f"{path} is missing: {what}", "complete the download or give another folder"
        )
    return path


def need_any(root: Path, pattern: str, what: str) -> list[Path]:
    """Everything below `root` that matches, sorted; at least one.

    Raises:
        InputError: nothing matches.
    """
    found = sorted(root.glob(pattern)) if root.is_dir() else []
    if not found:
        raise InputError(
            f"{root}: nothing matches {pattern}: {what}",
            "complete the download or give another folder",
        )
    return found


def read_lines(path: Path) -> list[tuple[int, str]]:
    """(line number from 1, text) of every line that is neither empty nor a `#` comment.

    Raises:
        InputError: it cannot be read.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({cause_of(error)})", DOWNLOAD_AGAIN) from error
    stripped = ((number, line.strip()) for number, line in enumerate(lines, start=1))
    return [(number, line) for number, line in stripped if line and not line.startswith("#")]


def numbers(path: Path) -> Float64:
    """A text file of numbers as a matrix.

    Raises:
        InputError: it cannot be read as numbers.
    """
    lines = [line for _, line in read_lines(need(path, "table of numbers"))]
    if not lines:
        raise InputError(f"{path}: holds no numbers", DOWNLOAD_AGAIN)
    try:
        return np.atleast_2d(np.loadtxt(lines, dtype=np.float64))
    except ValueError as error:
        raise InputError(f"{path}: is not a table of numbers ({error})", DOWNLOAD_AGAIN) from error


def pose_matrix(path: Path) -> Float64 | None:
    """A 4x4 camera-to-world matrix; None where it is marked invalid (not finite).

    Raises:
        InputError: the file is missing or holds something else.
    """
    pose = numbers(need(path, "pose"))
    if pose.shape != (4, 4):
        raise InputError(f"{path}: is not a 4x4 matrix", DOWNLOAD_AGAIN)
    return pose if np.isfinite(pose).all() else None


def read_image(path: Path) -> UInt8:
    """An image as rgb uint8 `[H, W, 3]`.

    Raises:
        InputError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise InputError(f"{path}: cannot be read as an image", DOWNLOAD_AGAIN)
    return np.ascontiguousarray(image[..., ::-1]).astype(np.uint8)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file.

    Raises:
        InputError: it cannot be read.
    """
    height, width = read_image(path).shape[:2]
    return width, height


def sixteen_bit(path: Path) -> np.typing.NDArray[np.uint16]:
    """A one-channel 16-bit image as it is, `[H, W]`.

    Raises:
        InputError: it cannot be read or is something else.
    """
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise InputError(f"{path}: is not a 16-bit depth image", DOWNLOAD_AGAIN)
    return np.ascontiguousarray(values).view(np.uint16)


def png_depth(path: Path, units_per_metre: float, invalid: tuple[int, ...] = (0,)) -> Float32:
    """A 16-bit depth PNG as metres float32 `[H, W]`, NaN where invalid.

    Raises:
        InputError: it cannot be read or is not 16-bit.
    """
    values = sixteen_bit(path)
    depth = values.astype(np.float32) / np.float32(units_per_metre)
    depth[np.isin(values, invalid)] = np.nan
    return depth


def pinhole_of(width: int, height: int, matrix: Float64) -> Camera:
    """A camera from K `[3, 3]` (or larger) in pixels."""
    fx, fy, cx, cy = (float(matrix[at]) for at in ((0, 0), (1, 1), (0, 2), (1, 2)))
    return Camera(width, height, fx, fy, cx, cy)
