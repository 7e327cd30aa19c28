"""What every benchmark loader yields: a sequence of image files with stamps, intrinsics, true poses
and depth, read lazily."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Camera, Float32, Float64, Frame


@dataclass(frozen=True)
class Shot:
    """One frame of a benchmark on disk.

    `pose` float64 `[4, 4]` camera-to-world of the optical frame, None where the benchmark has none
    for this frame; `depth` reads float32 `[H, W]` metres with NaN where invalid; `depth_camera` is
    its pinhole when it is not that of the image.
    """

    image: Path
    stamp_ns: int
    camera: Camera | None
    pose: Float64 | None = None
    depth: Callable[[], Float32] | None = None
    depth_camera: Camera | None = None


@dataclass(frozen=True)
class Sequence:
    """Frames of one sequence in order; `notes` say what was left out while reading it."""

    name: str
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = field(default=())

    def only(self, indices: list[int]) -> Sequence:
        """The chosen frames."""
        return replace(self, shots=tuple(self.shots[i] for i in indices))

    def frames(self) -> list[Frame]:
        """The images as frames, ids from 0.

        Raises:
            EvaluationError: an image cannot be read or does not fit its intrinsics.
        """
        return [load_frame(index, shot) for index, shot in enumerate(self.shots)]

    def poses(self) -> Float64:
        """True poses `[N, 4, 4]`.

        Raises:
            EvaluationError: a frame has none.
        """
        missing = [shot.image.name for shot in self.shots if shot.pose is None]
        if missing:
            raise EvaluationError(
                f"{self.name}: {len(missing)} frames have no true pose, the first is {missing[0]}"
            )
        return np.stack([shot.pose for shot in self.shots if shot.pose is not None])


def load_frame(frame_id: int, shot: Shot) -> Frame:
    """Read one image.

    Raises:
        EvaluationError: it cannot be read, or its size is not that of the intrinsics.
    """
    image = cv2.imread(str(shot.image), cv2.IMREAD_COLOR)
    if image is None:
        raise EvaluationError(f"{shot.image}: cannot be read", "download the file again")
    height, width = image.shape[:2]
    if shot.camera and (shot.camera.width, shot.camera.height) != (width, height):
        raise EvaluationError(
            f"{shot.image}: is {width}x{height}, its intrinsics are for "
            f"{shot.camera.width}x{shot.camera.height}"
        )
    return Frame(
        frame_id,
        shot.stamp_ns,
        np.ascontiguousarray(image[..., ::-1]).astype(np.uint8),
        shot.camera,
    )


def png_depth(path: Path, units_per_metre: float, invalid: tuple[int, ...] = (0,)) -> Float32:
    """A 16-bit depth PNG as metres, NaN where invalid.

    Raises:
        EvaluationError: it cannot be read or is not 16-bit.
    """
    values = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
    if values is None or values.dtype != np.uint16 or values.ndim != 2:
        raise EvaluationError(f"{path}: is not a 16-bit depth image", "download the file again")
    depth = values.astype(np.float32) / np.float32(units_per_metre)
    depth[np.isin(values, invalid)] = np.nan
    return depth


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) of an image file.

    Raises:
        EvaluationError: it cannot be read.
    """
    image = cv2.imread(str(path), cv2.IMREAD_COLOR)
    if image is None:
        raise EvaluationError(f"{path}: cannot be read", "download the file again")
    return image.shape[1], image.shape[0]


def pinhole_of(width: int, height: int, matrix: Float64) -> Camera:
    """A camera from K `[3, 3]` (or larger) in pixels."""
    return Camera(
        width,
        height,
        float(matrix[0, 0]),
        float(matrix[1, 1]),
        float(matrix[0, 2]),
        float(matrix[1, 2]),
    )


def need(path: Path, what: str) -> Path:
    """The path, which must exist.

    Raises:
        EvaluationError: it is missing; the message names the piece of the download.
    """
    if not path.exists():
        raise EvaluationError(
            f"{path} is missing: {what}", "complete the download or give another --data"
        )
    return path


def need_any(root: Path, pattern: str, what: str) -> list[Path]:
    """Everything below `root` that matches, sorted; at least one.

    Raises:
        EvaluationError: nothing matches.
    """
    found = sorted(root.glob(pattern)) if root.is_dir() else []
    if not found:
        raise EvaluationError(
            f"{root}: nothing matches {pattern}: {what}",
            "complete the download or give another --data",
        )
    return found


def numbers(path: Path) -> Float64:
    """A text file of numbers as a matrix.

    Raises:
        EvaluationError: it cannot be read as numbers.
    """
    try:
        return np.atleast_2d(np.loadtxt(path, dtype=np.float64))
    except (OSError, ValueError) as error:
        raise EvaluationError(
            f"{path}: is not a table of numbers ({error})", "download the file again"
        ) from error
