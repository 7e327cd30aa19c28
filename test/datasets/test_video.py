"""Trimmed and cut-off videos: hidden frames are not damaged ones."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from flow3r_ros.datasets.mp4_index import read_mp4_index
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import InputError
from test.conftest import shared_path
from test.offline.factory import write_pictures, write_video


def box(kind: bytes, *parts: bytes) -> bytes:
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), kind) + body


def movie(edits: list[tuple[int, int]], offsets: list[int] | None = None) -> bytes:
    """An mp4 without pictures: ten samples of 100 ticks, 1000 ticks a second, and an edit list."""
    listed = b"".join(struct.pack(">Iii", duration, begin, 65536) for duration, begin in edits)
    tables = [box(b"stts", bytes(4), struct.pack(">III", 1, 10, 100))]
    if offsets:
        runs = b"".join(struct.pack(">Ii", 1, offset) for offset in offsets)
        tables.append(box(b"ctts", bytes(4), struct.pack(">I", len(offsets)), runs))
    media = box(
        b"mdia",
        box(b"mdhd", bytes(12), struct.pack(">I", 1000), bytes(8)),
        box(b"hdlr", bytes(8), b"vide", bytes(13)),
        box(b"minf", box(b"stbl", *tables)),
    )
    edit = box(b"edts", box(b"elst", bytes(4), struct.pack(">I", len(edits)), listed))
    header = box(b"mvhd", bytes(12), struct.pack(">I", 500), bytes(80))
    return box(b"ftyp", b"isom") + box(b"moov", header, box(b"trak", edit, media))


EDITS = {
    "all": ([(500, 0)], None, 10),
    "to the end": ([(0, 600)], None, 4),
    "the middle": ([(200, 300)], None, 4),
    "an empty one first": ([(100, -1), (500, 0)], None, 10),
    "two pieces": ([(100, 0), (100, 700)], None, 4),
    "shown in another order": ([(500, 200)], [200, 400, 200, 0, 200] * 2, 10),
}


@pytest.mark.parametrize("name", EDITS)
def test_frames_that_an_edit_list_shows(tmp_path: Path, name: str) -> None:
    edits, offsets, shown = EDITS[name]
    (tmp_path / "a.mp4").write_bytes(movie(edits, offsets))
    index = read_mp4_index(tmp_path / "a.mp4")
    assert index is not None
    assert index.shown == shown


def test_hidden_frames_are_not_missing() -> None:
    with open_source(shared_path("cases/small/trimmed.mp4")) as source:
        assert source.total == 12
        assert len(list(source)) == 12
        assert not source.drops
        assert any("12 frames are hidden" in note for note in source.notes)


def test_an_mp4_cut_off_before_its_index_says_so(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 12)
    data = video.read_bytes()
    video.write_bytes(data[: data.index(b"moov") - 4])
    with pytest.raises(InputError, match="cut off before its index"), open_source(video):
        pass
    assert read_mp4_index(write_pictures(tmp_path / "p", [])) is None
