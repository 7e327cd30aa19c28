"""Reads a ROS 1 bag record by record, without its index: an unfinished `.bag.active`, a torn file.

The recorder writes the index last, so a recording that was cut off has none. Format:
wiki.ros.org/Bags/Format/2.0. Offers what `salvage` offers for the files of ROS 2.
"""

from __future__ import annotations

import io
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from flow3r_ros.bags.limits import MAX_UNPACKED, unpack_as_far_as_possible
from flow3r_ros.bags.salvage import Connection

_BEGIN = b"#ROSBAG V2.0\n"
_MESSAGE, _CHUNK, _CONNECTION = 2, 5, 7


class SalvagedRos1:
    """A ROS 1 bag up to its first torn record; a damaged chunk gives what it still holds.

    Raises ValueError when the file does not begin like a bag.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = ""
        self._topics: dict[int, tuple[str, str]] = {}
        counts: Counter[int] = Counter(connection for connection, _, _ in self._walk())
        self.connections = [
            Connection(key, topic, kind, counts[key], "ros1")
            for key, (topic, kind) in self._topics.items()
        ]

    def messages(
        self, connections: Collection[Any], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Messages of the connections with start <= time < stop (ns), in file order."""
        wanted = {connection.id: connection for connection in connections}
        for key, time, data in self._walk():
            if key in wanted and (start is None or time >= start) and (stop is None or time < stop):
                yield wanted[key], time, data

    def close(self) -> None:
        """Nothing stays open."""

    def _walk(self) -> Iterator[tuple[int, int, bytes]]:
        """Every readable (connection, time, data)."""
        with self.path.open("rb") as stream:
            if stream.read(len(_BEGIN)) != _BEGIN:
                raise ValueError("does not begin like a ROS 1 bag")
            damaged = 0
            for record in _records(stream):
                if record.op == _CHUNK:
                    raw, whole = _unpack_chunk(record)
                    damaged += not whole and not record.torn
                    for inner in _records(io.BytesIO(raw)):
                        yield from self._take(inner)
                else:
                    yield from self._take(record)
                if record.torn:
                    self.lost = f"torn at byte {stream.tell()} of {self.path.stat().st_size}"
            if damaged:
                words = f"{damaged} damaged chunks read as far as they go"
                self.lost = "; ".join(filter(None, [self.lost, words]))

    def _take(self, record: _Record) -> Iterator[tuple[int, int, bytes]]:
        """Remember connections, yield messages."""
        if record.torn:
            return
        try:
            if record.op == _CONNECTION:
                about = _fields(record.data)
                kind = about[b"type"].decode()
                kind = kind.replace("/", "/msg/") if kind.count("/") == 1 else kind
                topic = record.fields[b"topic"].decode()
                self._topics[_number(record.fields[b"conn"])] = (topic, kind)
            elif record.op == _MESSAGE:
                seconds, nanoseconds = struct.unpack("<II", record.fields[b"time"])
                key = _number(record.fields[b"conn"])
                if key in self._topics:
                    yield key, seconds * 1_000_000_000 + nanoseconds, record.data
        except (KeyError, struct.error, UnicodeDecodeError):
            return


class _Record(NamedTuple):
    op: int
    fields: dict[bytes, bytes]
    data: bytes
    torn: bool


def _records(stream: BinaryIO) -> Iterator[_Record]:
    """Record after record; after a torn one there is nothing."""
    while length := stream.read(4):
        head = _sized(stream, length)
        size = stream.read(4)
        if head is None or len(size) < 4:
            yield _Record(0, {}, b"", True)
            return
        fields = _fields(head)
        data = _sized(stream, size, partly=True)
        assert data is not None
        torn = len(data) < struct.unpack("<I", size)[0]
        yield _Record(fields.get(b"op", b"\0")[0], fields, data, torn)
        if torn:
            return


def _sized(stream: BinaryIO, length: bytes, partly: bool = False) -> bytes | None:
    """That many bytes, or what there is of them (`partly`), else None."""
    size = struct.unpack("<I", length)[0] if len(length) == 4 else MAX_UNPACKED + 1
    found = stream.read(size) if size <= MAX_UNPACKED else b""
    return found if partly or len(found) == size else None


def _fields(head: bytes) -> dict[bytes, bytes]:
    """`name=value` fields of a record's header, as many as are whole."""
    fields, at = {}, 0
    while at + 4 <= len(head):
        size = int(struct.unpack_from("<I", head, at)[0])
        name, _, value = head[at + 4 : at + 4 + size].partition(b"=")
        fields[name] = value
        at += 4 + size
    return {name: value for name, value in fields.items() if value}


def _unpack_chunk(record: _Record) -> tuple[bytes, bool]:
    """Records of a chunk, as many as its bytes still give, and whether they are all of them."""
    size = _number(record.fields.get(b"size", bytes(4)))
    packing = record.fields.get(b"compression", b"none")
    if packing == b"none":
        return record.data, len(record.data) == size
    if packing not in (b"lz4", b"bz2"):
        return b"", False
    raw = unpack_as_far_as_possible(record.data, "lz4" if packing == b"lz4" else "bz2", size)
    return raw, len(raw) == size


def _number(value: bytes) -> int:
    return int.from_bytes(value[:4], "little")
