"""Frames into an mp4 that lerobot, browsers and players read: H.264 through PyAV, two frames from
key frame to key frame, so that any frame is found quickly (as lerobot records)."""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

from flow3r_ros.errors import InputError, OutputError, install_extra
from flow3r_ros.types import UInt8

CODEC = "libx264"
OPTIONS = {"g": "2", "crf": "18", "threads": "1"}
"""key-frame distance and quality; lerobot takes crf 30, which costs geometry its texture. One
thread: with more the same frames gave two different films in twelve tries on a busy machine"""


def encode(path: Path, frames: Iterable[UInt8], fps: float) -> int:
    """Write frames rgb uint8 `[H, W, 3]`, all of one size, to `path`; their number.

    Raises:
        InputError: a frame has another size than the first, or PyAV is not installed.
        OutputError: the codec refuses them.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(
            "writing a LeRobot dataset needs PyAV", install_extra("lerobot")
        ) from error
    size, count = None, 0
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with av.open(str(path), "w") as container:
            stream: Any = container.add_stream(
                CODEC, rate=Fraction(fps).limit_denominator(100_000), options=OPTIONS
            )
            for rgb in frames:
                if size is None:
                    size = rgb.shape
                    stream.height, stream.width = rgb.shape[:2]
                    stream.pix_fmt = pixel_format(rgb.shape[1], rgb.shape[0])
                if rgb.shape != size:
                    raise InputError(
                        f"frame {count} is {rgb.shape[1]}x{rgb.shape[0]}, the first was "
                        f"{size[1]}x{size[0]}",
                        "an episode has frames of one size: cut the recording there",
                    )
                container.mux(stream.encode(av.VideoFrame.from_ndarray(rgb, format="rgb24")))
                count += 1
            container.mux(stream.encode())
    except av.FFmpegError as error:
        raise OutputError(f"{path}: cannot be encoded ({error})", "use other pictures") from error
    return count


def pixel_format(width: int, height: int) -> str:
    """Colour at half resolution, which every player knows, wherever the size is even."""
    return "yuv420p" if width % 2 == height % 2 == 0 else "yuv444p"
