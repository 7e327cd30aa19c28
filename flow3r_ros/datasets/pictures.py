"""Frames of a folder of images in natural order, with `timestamps.txt` in it or beside it, else 30
frames a second."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.stamps import FILE, read_stamps
from flow3r_ros.errors import FrameError, InputError
from flow3r_ros.types import UInt8
from flow3r_ros.wire.compressed import decode_bytes
from flow3r_ros.wire.tones import Tones

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
_PERIOD_NS = 33_333_333


class Pictures:
    """Pictures of one folder; a context manager that iterates over (stamp ns, rgb uint8 `[H, W,
    3]`).

    Attributes as in `video.Video`. Raises InputError when the folder is empty or stamps and images
    do not match in number.
    """

    def __init__(self, path: Path, every: int = 1) -> None:
        self.path = path
        self.every = every
        self.drops: Counter[str] = Counter()
        self.notes: list[str] = []

    def __enter__(self) -> Pictures:
        self._files = images_in(self.path)
        if not self._files:
            raise InputError(f"{self.path}: holds no images", f"known: {', '.join(SUFFIXES)}")
        self.total: int | None = len(self._files)
        listed = next(
            (file for file in (self.path / FILE, self.path.parent / FILE) if file.is_file()), None
        )
        if listed is None:
            self.notes.append(f"no {FILE}: 30 frames a second are assumed")
            self._stamps = [index * _PERIOD_NS for index in range(len(self._files))]
            return self
        self._stamps = read_stamps(listed)
        if len(self._stamps) != len(self._files):
            raise InputError(
                f"{listed}: {len(self._stamps)} stamps for {len(self._files)} images",
                "give one stamp a line for each image",
            )
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""

    def __iter__(self) -> Iterator[tuple[int, UInt8]]:
        tones = Tones(lambda key, text: self.notes.append(text))
        for file, stamp in list(zip(self._files, self._stamps, strict=True))[:: self.every]:
            try:
                data = np.frombuffer(file.read_bytes(), np.uint8)
                yield stamp, decode_bytes(data, file.name, tones)
            except (FrameError, OSError) as error:
                self.drops["corrupt_image"] += 1
                if self.drops["corrupt_image"] == 1:
                    self.notes.append(f"unreadable images are skipped, the first: {error}")


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, `frame_2` before `frame_10`."""
    files = (
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    return sorted(
        files,
        key=lambda file: [
            int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", file.name)
        ],
    )
