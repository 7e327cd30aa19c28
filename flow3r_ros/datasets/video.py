"""Frames of a video file, decoded by OpenCV's FFmpeg.

Stamps come from `timestamps.txt` beside the file where it is the only video there, else from the
container. Frames that cannot be decoded are counted against what the container promised.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.datasets.mp4_index import read_mp4_index
from flow3r_ros.datasets.stamps import FILE, read_stamps
from flow3r_ros.errors import InputError
from flow3r_ros.types import UInt8

SUFFIXES = (
    ".mp4",
    ".mov",
    ".m4v",
    ".avi",
    ".mkv",
    ".webm",
    ".mpg",
    ".mpeg",
    ".mjpg",
    ".mjpeg",
    ".ts",
    ".wmv",
    ".flv",
    ".3gp",
    ".ogv",
    ".h264",
    ".hevc",
    ".gif",
)
_EXACT = (".mp4", ".mov", ".m4v", ".avi")
"""containers whose frame count is a table, not a guess from the duration"""
_PATIENCE = 64
"""failures in a row that mean the end of a damaged file"""


class Video:
    """Pictures of one video; a context manager that iterates over (stamp ns, rgb uint8 `[H, W,
    3]`).

    Attributes: `total` frames the container promises (None when it does not say); `drops`; `notes`.
    Raises InputError when it cannot be opened or holds no readable frame.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self.path = path
        self.every = every
        self.drops: Counter[str] = Counter()
        self.notes: list[str] = []

    def __enter__(self) -> Video:
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        if hasattr(cv2.utils, "logging"):  # not in OpenCV 4.6, which Debian 12 and Ubuntu have
            cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        size = self.path.stat().st_size if self.path.is_file() else 0
        address = str(self.path.absolute())  # a bare `2024-05-01T10:22.mp4` names a protocol
        index = read_mp4_index(self.path)
        self._capture = cv2.VideoCapture(address, cv2.CAP_FFMPEG)
        if not size or not self._capture.isOpened():
            self._capture.release()
            if not size:
                raise InputError(f"{self.path}: is empty", "record or copy it again")
            if index is not None and not index.has_index:
                raise InputError(
                    f"{self.path}: is an mp4 or mov that was cut off before its index was written",
                    "copy it again, or repair it with a copy tool of the camera's maker",
                )
            raise InputError(
                f"{self.path}: is not a video that can be opened, or was cut off",
                "check the file; `ffmpeg -i` says more",
            )
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.total = int(count) if math.isfinite(count) and 0 < count < 1e9 else None
        if index is not None and index.shown and self.total and index.shown < self.total:
            hidden = self.total - index.shown
            self.notes.append(f"trimmed: {hidden} frames are hidden by the file's edit list")
            self.total = index.shown
        fps = self._capture.get(cv2.CAP_PROP_FPS)
        self._fps = fps if math.isfinite(fps) and 0.1 < fps < 1000 else 30.0
        listed = self.path.absolute().parent / FILE
        self._stamps = read_stamps(listed, self.notes) if _has_stamps(self.path) else None
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, UInt8]]:
        index, read, last_ns = -1, 0, -1
        while self._grab(read):
            read += 1
            shown_ns = round(self._capture.get(cv2.CAP_PROP_POS_MSEC) * 1e6)
            index = (
                max(index + 1, round(shown_ns * 1e-9 * self._fps))
                if self._stamps is not None
                else index + 1
            )
            if (read - 1) % self.every:
                continue
            good, bgr = self._capture.retrieve()
            if not good or bgr is None:
                self.drops["corrupt_image"] += 1
                continue
            last_ns = (
                shown_ns if shown_ns > last_ns else max(last_ns + 1, round(index * 1e9 / self._fps))
            )
            if self._stamps is not None and index >= len(self._stamps):
                self.drops["no_timestamp"] += 1
                continue
            rgb = np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)
            yield (last_ns if self._stamps is None else self._stamps[index]), rgb
        self._settle(read)

    def _grab(self, read: int) -> bool:
        """Go to the next decodable frame; while the container promises more frames, damaged ones
        are tried and passed over."""
        if self.total is not None and read >= self.total:
            return bool(self._capture.grab())
        return any(self._capture.grab() for _ in range(_PATIENCE))

    def _settle(self, read: int) -> None:
        """Count what the container promised and did not hold."""
        if read == 0:
            raise InputError(
                f"{self.path}: holds no readable frame", "check the file; `ffmpeg -i` says more"
            )
        if self._stamps is not None and self.drops["no_timestamp"]:
            self.notes.append(
                f"{FILE} holds {len(self._stamps)} stamps for {read} frames; the rest is dropped"
            )
        missing = (self.total or read) - read
        if missing > (0 if self.path.suffix.lower() in _EXACT else max(2, read // 50)):
            self.drops["corrupt_image"] += missing // self.every
            self.notes.append(f"{read} of {self.total} frames can be read")


def _has_stamps(path: Path) -> bool:
    folder = path.absolute().parent
    if not (folder / FILE).is_file():
        return False
    return [file for file in folder.iterdir() if file.suffix.lower() in SUFFIXES] == [
        folder / path.name
    ]
