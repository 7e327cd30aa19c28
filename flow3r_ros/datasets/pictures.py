"""Frames of a folder of pictures, each with its stamp: from a list beside them, from their names,
else 30 frames a second in natural order."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flow3r_ros.datasets.stamps import FILE, read_stamps, stamps_of_names
from flow3r_ros.errors import FrameError, InputError
from flow3r_ros.paths import natural_key
from flow3r_ros.types import Camera, UInt8
from flow3r_ros.wire.compressed import decode_bytes
from flow3r_ros.wire.tones import Tones

SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".ppm", ".pgm")
LARGEST_FILE = 1 << 28
"""bytes of one picture file that are read (256 MiB); larger ones are dropped unread"""
_PERIOD_NS = 33_333_333
_LISTS = (FILE, "times.txt")
"""stamps one a line, in the folder or beside it; KITTI odometry calls them times.txt"""


@dataclass(frozen=True)
class Listing:
    """Pictures in order, a stamp (int ns) for each; `camera` where the data set publishes it;
    `notes` say what was assumed."""

    files: tuple[Path, ...]
    stamps_ns: tuple[int, ...]
    camera: Camera | None = None
    notes: tuple[str, ...] = ()


class Pictures:
    """Pictures of one folder; a context manager that iterates over (stamp ns, rgb uint8 `[H, W,
    3]`).

    `listing` says which and when, where a data set does; else the folder is listed. Attributes as
    in `video.Video`. Raises InputError when the folder is empty or stamps and images do not match
    in number.
    """

    def __init__(self, path: Path, every: int = 1, listing: Listing | None = None) -> None:
        self.path = path
        self.every = every
        self.drops: Counter[str] = Counter()
        self.notes: list[str] = []
        self.listing = listing

    def __enter__(self) -> Pictures:
        if self.listing is None:
            self.listing = list_pictures(self.path)
        self.notes += self.listing.notes
        self.total: int | None = len(self.listing.files)
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing stays open."""

    def __iter__(self) -> Iterator[tuple[int, UInt8]]:
        assert self.listing is not None
        tones = Tones(lambda key, text: self.notes.append(text))
        pairs = zip(self.listing.files, self.listing.stamps_ns, strict=True)
        for file, stamp in list(pairs)[:: self.every]:
            try:
                yield stamp, _decode(file, tones)
            except (FrameError, OSError) as error:
                reason = error.reason if isinstance(error, FrameError) else "corrupt_image"
                self.drops[reason] += 1
                if self.drops[reason] == 1:
                    self.notes.append(f"unreadable images are skipped, the first: {error}")


def list_pictures(folder: Path) -> Listing:
    """The pictures of a folder in order of time.

    Raises InputError when there are none, or a list of stamps is damaged or of another length.
    """
    files = images_in(folder)
    if not files:
        raise InputError(f"{folder}: holds no images", f"known: {', '.join(SUFFIXES)}")
    absolute = folder.absolute()
    places = (place / name for name in _LISTS for place in (absolute, absolute.parent))
    listed = next((file for file in places if file.is_file()), None)
    if listed is None:
        named = stamps_of_names([file.name for file in files])
        if named is not None:
            order = sorted(range(len(files)), key=lambda index: named[index])
            return Listing(tuple(files[i] for i in order), tuple(named[i] for i in order))
        stamps = tuple(index * _PERIOD_NS for index in range(len(files)))
        return Listing(tuple(files), stamps, None, (f"no {FILE}: 30 frames a second are assumed",))
    notes: list[str] = []
    listed_ns = read_stamps(listed, notes)
    if len(listed_ns) != len(files):
        raise InputError(
            f"{listed}: {len(listed_ns)} stamps for {len(files)} images",
            "give one stamp a line for each image",
        )
    return Listing(tuple(_in_order(files)), tuple(listed_ns), None, tuple(notes))


def images_in(folder: Path) -> list[Path]:
    """Image files of a folder, `frame_2` before `frame_10`."""
    files = (
        file
        for file in folder.iterdir()
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".")
    )
    return sorted(files, key=natural_key)


def _in_order(files: list[Path]) -> list[Path]:
    """By the stamps in their names where they have them, else as `images_in` gives them."""
    named = stamps_of_names([file.name for file in files])
    if named is None:
        return files
    return [files[i] for i in sorted(range(len(files)), key=lambda index: named[index])]


def _decode(file: Path, tones: Tones) -> UInt8:
    size = file.stat().st_size
    if size > LARGEST_FILE:
        raise FrameError("too_large", f"{file.name} has {size} bytes", "send smaller pictures")
    return decode_bytes(np.frombuffer(file.read_bytes(), np.uint8), file.name, tones)
