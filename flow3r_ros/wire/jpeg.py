"""JPEG as cameras stream it: without its Huffman tables (motion JPEG), without its end marker, with
padding behind it.

ITU-T T.81: segments are read up to the start of scan, the rest is left to the decoder.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from flow3r_ros.types import UInt8

_START, _END = b"\xff\xd8", b"\xff\xd9"
_TABLES, _SCAN = 0xC4, 0xDA
_FRAMES = {0xC0, 0xC1, 0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF}
_BARE = {0x01, *range(0xD0, 0xD8)}
"""markers without a length"""
_EMPTY = 128
"""gray level that the decoder leaves where the stream ended too early"""


@dataclass(frozen=True)
class _Head:
    size: tuple[int, int] | None
    progressive: bool
    tables: bool
    scan: int
    """position of the first start-of-scan marker, -1 where there is none"""


def _head(data: bytes) -> _Head:
    """Read the segments from the start marker to the first scan."""
    size, progressive, tables, at = None, False, False, 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:
            at += 1
            continue
        if marker == _SCAN:
            return _Head(size, progressive, tables, at)
        if marker in _BARE:
            at += 2
            continue
        if marker in _FRAMES and at + 9 <= len(data):
            height = int.from_bytes(data[at + 5 : at + 7], "big")
            size = int.from_bytes(data[at + 7 : at + 9], "big"), height
            progressive = marker in (0xC2, 0xC6, 0xCA, 0xCE)
        tables = tables or marker == _TABLES
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return _Head(size, progressive, tables, -1)


def is_jpeg(data: bytes) -> bool:
    """Whether the bytes begin as a JPEG does."""
    return data[:2] == _START


def jpeg_size(data: bytes) -> tuple[int, int] | None:
    """(width, height) from the frame header; None where there is none."""
    return _head(data).size


def mended(data: bytes) -> tuple[bytes, bool]:
    """The JPEG with the standard Huffman tables where it has none and an end marker where it has
    none, and whether the end was there.

    Nothing comes back (no bytes) of one that cannot be whole: without a scan, or progressive and
    without an end, since missing scans do not show as a missing part.
    """
    head = _head(data)
    ended = head.scan >= 0 and data.find(_END, head.scan) >= 0
    if head.scan < 0 or (head.progressive and not ended):
        return b"", False
    if not ended:
        data = data.rstrip(b"\0") + _END
    if not head.tables:
        data = data[: head.scan] + _standard_tables() + data[head.scan :]
    return data, ended


def is_cut(pixels: UInt8) -> bool:
    """Whether a decoded picture `[H, W]` or `[H, W, 3]` of a JPEG without end marker lacks its end:
    its last block holds nothing but the level that the decoder fills in."""
    corner = pixels[-4:, -4:].astype(np.int16)
    return bool((np.abs(corner - _EMPTY) <= 1).all())


@cache
def _standard_tables() -> bytes:
    """The Huffman tables of T.81 annex K, as our own encoder writes them."""
    data = cv2.imencode(".jpg", np.zeros((16, 16, 3), np.uint8))[1].tobytes()
    found, at = b"", 2
    while data[at + 1] != _SCAN:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        found += data[at:end] if data[at + 1] == _TABLES else b""
        at = end
    return found
