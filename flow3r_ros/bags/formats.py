"""Which kind of bag file this is, told by its first bytes, never by its name."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from flow3r_ros.bags.limits import UnpackError, pieces

BagFormat = Literal["mcap", "sqlite3", "ros1"]
_MAGIC: dict[bytes, BagFormat] = {
    b"\x89MCAP0\r\n": "mcap",
    b"SQLite format 3\0": "sqlite3",
    b"#ROSBAG V2.0": "ros1",
}
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_HEAD = 4096
_LARGEST_BLOCK = 1 << 18
"""bytes that surely hold the first block of a zstd file (128 KiB at most, and its headers)"""


def bag_format(path: Path) -> BagFormat | None:
    """Format of a bag file, also of one that is packed as a whole (zstd); None for anything else,
    and for what cannot be read."""
    head = first_bytes(path)
    if head.startswith(ZSTD_MAGIC):
        head = first_bytes(path, _LARGEST_BLOCK)
    if head.startswith(ZSTD_MAGIC):
        try:
            head = next(pieces([head], "zstd", 1 << 20), b"")
        except UnpackError:
            return None
    return next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), None)


def is_packed(path: Path) -> bool:
    """Whether the file is packed as a whole (zstd)."""
    return first_bytes(path).startswith(ZSTD_MAGIC)


def first_bytes(path: Path, size: int = _HEAD) -> bytes:
    """The first `size` bytes; empty for what is no readable file."""
    try:
        if not path.is_file():
            return b""
        with path.open("rb") as stream:
            return stream.read(size)
    except OSError:
        return b""
