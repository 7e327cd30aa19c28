"""How many frames of an mp4 or mov are shown: its table of samples, cut by its edit list.

Phones and `ffmpeg -ss ... -c copy` trim without recoding: the file keeps the frames from the key
frame on, and an edit list hides those before the cut. Decoders drop them, and the container's count
still has them. Format: ISO/IEC 14496-12 (mvhd, mdhd, hdlr, elst, stts, ctts).
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

_LARGEST_INDEX = 1 << 26
"""bytes of a moov box that are read: 64 MiB index weeks of video"""
_MOST_SAMPLES = 1 << 24
_CONTAINERS = (b"trak", b"mdia", b"minf", b"stbl", b"edts")


class Mp4Index(NamedTuple):
    """`has_index`: whether there is a moov box, without which nothing can be decoded; `shown`
    frames of the first video track, None when the tables do not say."""

    has_index: bool
    shown: int | None


def read_mp4_index(path: Path) -> Mp4Index | None:
    """The index of an mp4 or mov; None for another kind of file."""
    try:
        with path.open("rb") as stream:
            size = path.stat().st_size
            head, found = stream.read(12), False
            if head[4:8] not in (b"ftyp", b"moov", b"mdat", b"free", b"wide", b"skip", b"pnot"):
                return None
            at = 0
            while at + 8 <= size:
                stream.seek(at)
                length, kind = struct.unpack(">I4s", stream.read(8))
                begin = at + 8
                if length == 1:
                    length, begin = struct.unpack(">Q", stream.read(8))[0], at + 16
                length = length or size - at
                if kind == b"moov" and at + length <= size and length <= _LARGEST_INDEX:
                    stream.seek(begin)
                    return Mp4Index(True, _shown(stream.read(at + length - begin)))
                found = found or (kind == b"moov" and at + length <= size)
                if length < 8:
                    break
                at += length
            return Mp4Index(found, None)
    except (OSError, struct.error):
        return None


def _shown(moov: bytes) -> int | None:
    try:
        movie_scale = 1
        for kind, body in _boxes(moov):
            if kind == b"mvhd":
                movie_scale = _timescale(body)
            elif kind == b"trak":
                track = dict(_nested(body))
                if track.get(b"hdlr", b"")[8:12] == b"vide":
                    return _shown_of(track, movie_scale)
    except (struct.error, IndexError, ValueError, ZeroDivisionError):
        return None
    return None


def _boxes(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 0
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        begin = at + 8
        if length == 1:
            length, begin = struct.unpack_from(">Q", data, begin)[0], at + 16
        length = length or len(data) - at
        if length < 8:
            return
        yield kind, data[begin : at + length]
        at += length


def _nested(body: bytes) -> Iterator[tuple[bytes, bytes]]:
    for kind, inner in _boxes(body):
        if kind in _CONTAINERS:
            yield from _nested(inner)
        elif kind != b"hdlr" or inner[8:12] in (b"vide", b"soun"):
            yield kind, inner


def _timescale(body: bytes) -> int:
    return int(struct.unpack_from(">I", body, 20 if body[0] == 1 else 12)[0])


def _shown_of(track: dict[bytes, bytes], movie_scale: int) -> int | None:
    """Samples whose time lies in an edit."""
    if b"stts" not in track or b"mdhd" not in track:
        return None
    steps = _runs(track[b"stts"], ">u4")
    times = np.concatenate([[0], np.cumsum(steps)[:-1]]) if len(steps) else steps
    if b"ctts" in track:
        offsets = _runs(track[b"ctts"], ">i4")
        times = times + offsets[: len(times)] if len(offsets) >= len(times) else times
    if not len(times):
        return None
    if b"elst" not in track:
        return len(times)
    scale = _timescale(track[b"mdhd"])
    half = float(np.median(steps)) / 2
    shown = np.zeros(len(times), bool)
    for duration, begin in _edits(track[b"elst"]):
        if begin < 0:
            continue
        end = begin + duration * scale / movie_scale if duration else np.inf
        shown |= (times >= begin - half / 8) & (times < end - half / 8)
    return int(shown.sum())


def _runs(body: bytes, second: str) -> NDArray[np.int64]:
    """A table of (count, value), written out."""
    entries = struct.unpack_from(">I", body, 4)[0]
    table = np.frombuffer(body, np.dtype([("n", ">u4"), ("value", second)]), entries, 8)
    if int(table["n"].astype(np.int64).sum()) > _MOST_SAMPLES:
        raise ValueError("more samples than a video has")
    return np.repeat(table["value"].astype(np.int64), table["n"])


def _edits(body: bytes) -> Iterator[tuple[int, int]]:
    """(duration in the movie's time, begin in the track's time) of each edit."""
    layout = struct.Struct(">Qqi" if body[0] == 1 else ">Iii")
    for index in range(struct.unpack_from(">I", body, 4)[0]):
        duration, begin, _ = layout.unpack_from(body, 8 + index * layout.size)
        yield duration, begin
