"""How large a picture may be: its size is read from its header before anything is decoded.

A PNG of 125 kB can hold 32000 x 32000 pixels, which cost gigabytes once decoded. Whatever comes
from outside is therefore measured first, and what has no header we can read is not decoded.
"""

from __future__ import annotations

import re
import struct

from flow3r_ros.errors import FrameError
from flow3r_ros.wire.jpeg import jpeg_size

MAX_PIXELS = 100_000_000
"""most pixels of one picture: four times the largest camera we know of (24 megapixels), 300 MB as
RGB"""
FORMATS = "PNG, JPEG, BMP, GIF, TIFF, WebP, JPEG 2000, PNM"
"""formats whose size is read from the header"""


def check_size(width: int, height: int, what: str) -> None:
    """Raise FrameError (`too_large`) for more than `MAX_PIXELS`; `what` names the picture."""
    if width * height > MAX_PIXELS:
        raise FrameError(
            "too_large",
            f"{what} is {width}x{height} pixels, more than the {MAX_PIXELS // 1_000_000} "
            "megapixels that are read",
            "send smaller pictures",
        )


def encoded_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) that the header of an encoded picture declares; None for an unknown format or
    a damaged header."""
    try:
        return _size(data)
    except (struct.error, IndexError, ValueError):
        return None


def _size(data: bytes) -> tuple[int, int] | None:
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return _pair(">II", data, 16)
    if data[:2] == b"\xff\xd8":
        return jpeg_size(data)
    if data[:2] == b"BM":
        width, height = _pair("<ii", data, 18) if data[14] >= 40 else _pair("<HH", data, 18)
        return abs(width), abs(height)
    if data[:4] == b"GIF8":
        return _pair("<HH", data, 6)
    if data[:4] in (b"II*\0", b"MM\0*"):
        return _tiff(data, "<" if data[:2] == b"II" else ">")
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return _webp(data)
    if data[4:8] == b"jP  " or data[:4] == b"\xff\x4f\xff\x51":
        return _jpeg_2000(data)
    if re.match(rb"P[1-7]\s", data[:3]):
        return _pnm(data)
    return None


def _pair(layout: str, data: bytes, at: int) -> tuple[int, int]:
    first, second = struct.unpack_from(layout, data, at)
    return int(first), int(second)


def _tiff(data: bytes, order: str) -> tuple[int, int] | None:
    """Tags 256 (width) and 257 (height) of the first directory, of type SHORT or LONG."""
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    found: dict[int, int] = {}
    for index in range(min(count, 4096)):
        entry = at + 2 + 12 * index
        tag, kind = _pair(order + "HH", data, entry)
        if tag in (256, 257) and kind in (3, 4):
            (found[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return (found[256], found[257]) if len(found) == 2 else None


def _webp(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        width = int.from_bytes(data[24:27], "little") + 1
        return width, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8 ":
        width, height = _pair("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _jpeg_2000(data: bytes) -> tuple[int, int] | None:
    box = data.find(b"ihdr", 0, 4096)
    if box >= 0:
        height, width = _pair(">II", data, box + 4)
        return width, height
    return _pair(">II", data, 8)


def _pnm(data: bytes) -> tuple[int, int] | None:
    head = re.sub(rb"#[^\n]*", b" ", data[:4096])
    if head[:2] == b"P7":
        fields = dict(re.findall(rb"(WIDTH|HEIGHT)\s+(\d+)", head))
        return (int(fields[b"WIDTH"]), int(fields[b"HEIGHT"])) if len(fields) == 2 else None
    found = re.match(rb"P\d\s+(\d+)\s+(\d+)", head)
    return (int(found[1]), int(found[2])) if found else None
