"""A recorded sequence of a public data set: images with stamps, intrinsics, and where the data set
has them true poses and depth, all read lazily.

Every reader of `datasets/` gives `Sequence`s of `Shot`s; `flow3r run` takes their frames, training
and evaluation those with truth (`with_truth`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.files import read_image
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import Rectifier
from flow3r_ros.geometry.depth_map import resample_depth
from flow3r_ros.geometry.flow import nearest_resize
from flow3r_ros.types import Camera, Float32, Float64, Frame, UInt8


@dataclass(frozen=True)
class Shot:
    """One recorded frame.

    `image` is its file; `pose` float64 `[4, 4]` camera-to-world of the optical frame, None where
    the data set has none for this frame; `depth` reads float32 `[H, W]` metres with NaN where
    invalid; `depth_camera` is its lens when it is not that of the image; `decode` reads the image
    where it is not a file of its own (then `image` is the bag).
    """

    image: Path
    stamp_ns: int
    camera: Camera | None
    pose: Float64 | None = None
    depth: Callable[[], Float32] | None = None
    depth_camera: Camera | None = None
    decode: Callable[[], UInt8] | None = None


@dataclass(frozen=True)
class LabelledFrame:
    """`rgb` uint8 `[H, W, 3]` rectified; `depth` float32 `[H, W]` metres along z, NaN = invalid;
    `pose` camera-to-world `[4, 4]`; the pinhole of both."""

    rgb: UInt8
    depth: Float32
    pose: Float64
    camera: Camera


@dataclass(frozen=True)
class Sequence:
    """Frames of one sequence in order of time; `notes` say what was left out or assumed."""

    name: str
    shots: tuple[Shot, ...]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.shots)

    def only(self, indices: list[int]) -> Sequence:
        """The chosen frames."""
        return replace(self, shots=tuple(self.shots[i] for i in indices))

    def with_truth(self, depth: bool = False) -> Sequence:
        """The frames that have a true pose, and depth where it is asked for; `notes` count the
        others.

        Raises:
            InputError: none has.
        """
        posed = [shot for shot in self.shots if shot.pose is not None]
        kept = [shot for shot in posed if shot.depth is not None] if depth else posed
        if not kept:
            what = "a true pose and depth" if depth else "a true pose"
            raise InputError(
                f"{self.name}: no frame has {what}", "complete the download of this sequence"
            )
        lost = {"pose": len(self.shots) - len(posed), "depth": len(posed) - len(kept)}
        notes = tuple(f"{count} frames without a {what}" for what, count in lost.items() if count)
        return replace(self, shots=tuple(kept), notes=(*self.notes, *notes))

    def frames(self) -> Iterator[Frame]:
        """The images as frames, ids from 0.

        Raises:
            InputError: an image cannot be read or does not fit its intrinsics.
        """
        return (load_frame(index, shot) for index, shot in enumerate(self.shots))

    def labelled(self, index: int) -> LabelledFrame:
        """One frame with truth, rectified, its depth on the grid of the image; all NaN where the
        data set has none.

        Raises:
            InputError: a file cannot be read, or the frame lacks intrinsics or a pose.
        """
        shot = self.shots[index]
        if shot.camera is None or shot.pose is None:
            raise InputError(
                f"{self.name}: frame {index} lacks intrinsics or a true pose",
                "leave it out (Sequence.with_truth)",
            )
        rectifier = Rectifier(shot.camera)
        rgb = rectifier.apply(load_frame(index, shot).rgb)
        if shot.depth is None:
            unknown = np.full(rgb.shape[:2], np.nan, np.float32)
            return LabelledFrame(rgb, unknown, shot.pose, rectifier.rectified)
        depth, lens = shot.depth(), shot.depth_camera
        if lens is None:
            depth, lens = nearest_resize(depth, shot.camera.width, shot.camera.height), shot.camera
        depth = resample_depth(depth, lens, rectifier.rectified)
        return LabelledFrame(rgb, depth, shot.pose, rectifier.rectified)

    def poses(self) -> Float64:
        """True poses `[N, 4, 4]`.

        Raises:
            InputError: a frame has none.
        """
        missing = [shot.image.name for shot in self.shots if shot.pose is None]
        if missing:
            raise InputError(
                f"{self.name}: {len(missing)} frames have no true pose, the first is {missing[0]}"
            )
        return np.stack([shot.pose for shot in self.shots if shot.pose is not None])


def load_frame(frame_id: int, shot: Shot) -> Frame:
    """Read one image.

    Raises:
        InputError: it cannot be read, or its size is not that of the intrinsics.
    """
    rgb = shot.decode() if shot.decode else read_image(shot.image)
    height, width = rgb.shape[:2]
    if shot.camera and (shot.camera.width, shot.camera.height) != (width, height):
        raise InputError(
            f"{shot.image}: is {width}x{height}, its intrinsics are for "
            f"{shot.camera.width}x{shot.camera.height}",
            "use the intrinsics of this image size",
        )
    return Frame(frame_id, shot.stamp_ns, rgb, shot.camera)
