"""Reads damaged bag files as far as they are readable: an mcap without its end, an sqlite file with
corrupt pages.

`rosbags` reads whole files; these two classes step in where it refuses. They offer the part of its
reader that `storage` uses (`connections`, `messages`) and say in `lost` what could not be read.
Formats: mcap.dev/spec, rosbag2's sqlite schema.
"""

from __future__ import annotations

import io
import sqlite3
import struct
from collections import Counter
from collections.abc import Collection, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from zlib import crc32

from flow3r_ros.bags.limits import MAX_UNPACKED, Packing, unpack_as_far_as_possible

MAGIC = b"\x89MCAP0\r\n"
_SCHEMA, _CHANNEL, _MESSAGE, _CHUNK, _DATA_END = 0x03, 0x04, 0x05, 0x06, 0x0F
_MAX_GAP = 4096
"""rows of an sqlite bag that may be missing in a row before its end is assumed"""


class Connection(NamedTuple):
    """Topic of a salvaged file; the fields that rosbags' connections have too."""

    id: int
    topic: str
    msgtype: str
    msgcount: int
    encoding: str = "cdr"


class SalvagedMcap:
    """An mcap read record by record up to the first torn one; a damaged chunk gives what it still
    holds.

    Raises ValueError when the file does not begin like an mcap.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = ""
        self._types: dict[int, str] = {}
        self._topics: dict[int, tuple[str, str, str]] = {}
        counts: Counter[int] = Counter(channel for channel, _, _ in self._walk(0))
        self.connections = [
            Connection(channel, topic, kind, counts[channel], encoding)
            for channel, (topic, kind, encoding) in self._topics.items()
        ]

    def messages(
        self, connections: Collection[Any], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Messages of the connections with start <= time < stop (ns), in file order."""
        wanted = {connection.id: connection for connection in connections}
        for channel, time, data in self._walk(start or 0):
            if (
                channel in wanted
                and (start is None or time >= start)
                and (stop is None or time < stop)
            ):
                yield wanted[channel], time, data

    def close(self) -> None:
        """Nothing stays open."""

    def _walk(self, after: int) -> Iterator[tuple[int, int, bytes]]:
        """Every readable (channel, time, data); chunks that end before `after` are not unpacked
        once their channels are known."""
        with self.path.open("rb") as stream:
            if stream.read(len(MAGIC)) != MAGIC:
                raise ValueError("does not begin like an mcap")
            damaged = 0
            for code, body, torn in _records(stream):
                if code == _CHUNK:
                    if (
                        self._topics
                        and not torn
                        and len(body) >= 16
                        and struct.unpack_from("<Q", body, 8)[0] < after
                    ):
                        continue
                    raw, whole = _unpack_chunk(body)
                    damaged += not whole and not torn
                    for inner, inner_body, inner_torn in _records(io.BytesIO(raw)):
                        if not inner_torn:
                            yield from self._take(inner, inner_body)
                elif not torn:
                    yield from self._take(code, body)
                if torn:
                    self.lost = f"torn at byte {stream.tell()} of {self.path.stat().st_size}"
            if damaged:
                self.lost = "; ".join(
                    filter(None, [self.lost, f"{damaged} damaged chunks read as far as they go"])
                )

    def _take(self, code: int, body: bytes) -> Iterator[tuple[int, int, bytes]]:
        """Remember schemas and channels, yield messages; what makes no sense is passed over."""
        try:
            if code == _SCHEMA:
                self._types[struct.unpack_from("<H", body)[0]] = _string(body, 2)[0]
            elif code == _CHANNEL:
                channel, schema = struct.unpack_from("<HH", body)
                topic, end = _string(body, 4)
                encoding = _string(body, end)[0]
                kind = self._types.get(schema, "")
                if encoding == "ros1" and kind.count("/") == 1:
                    kind = kind.replace("/", "/msg/")
                self._topics[channel] = (topic, kind, encoding)
            elif code == _MESSAGE and len(body) >= 22:
                channel, _, time = struct.unpack_from("<HIQ", body)
                yield channel, time, body[22:]
        except (struct.error, UnicodeDecodeError):
            return


def _records(stream: BinaryIO) -> Iterator[tuple[int, bytes, bool]]:
    """(code, body, torn) of each record, without those beyond `MAX_UNPACKED`; after a torn one, or
    the end of the data section, there is nothing."""
    while head := stream.read(9):
        if head[0] == _DATA_END:
            return
        size = struct.unpack("<Q", head[1:])[0] if len(head) == 9 else -1
        if size > MAX_UNPACKED:
            begin = stream.tell()
            end = stream.seek(0, io.SEEK_END)
            if size <= end - begin:
                stream.seek(begin + size)
                continue
            size = -1
        body = stream.read(size) if size >= 0 else b""
        yield head[0], body, len(body) != size
        if len(body) != size:
            return


def _unpack_chunk(body: bytes) -> tuple[bytes, bool]:
    """Records of a chunk, as many as its bytes still give, and whether they are all of them and
    undamaged."""
    try:
        size, crc = struct.unpack_from("<QI", body, 16)
        compression, offset = _string(body, 28)
        packed = body[offset + 8 : offset + 8 + struct.unpack_from("<Q", body, offset)[0]]
    except (struct.error, UnicodeDecodeError):
        return b"", False
    raw = packed
    if compression in ("zstd", "lz4"):
        packing: Packing = "zstd" if compression == "zstd" else "lz4"
        raw = unpack_as_far_as_possible(packed, packing, size)
    return raw, len(raw) == size and (not crc or crc32(raw) == crc)


def _string(body: bytes, offset: int) -> tuple[str, int]:
    """A length-prefixed string and the offset behind it."""
    end = offset + 4 + int(struct.unpack_from("<I", body, offset)[0])
    return body[offset + 4 : end].decode(), end


class SalvagedSqlite:
    """A rosbag2 sqlite file read row by row, each on its own, so that a corrupt page costs only its
    rows; a write-ahead log is read.

    Raises ValueError when the table of topics cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lost = ""
        try:
            with closing(self._connect()) as database:
                rows = database.execute("SELECT id, name, type FROM topics").fetchall()
                self.connections = [
                    Connection(int(key), str(name), str(kind), 0) for key, name, kind in rows
                ]
            counts: Counter[int] = Counter(key for key, _, _ in self._walk("length(data)"))
        except sqlite3.Error as error:
            raise ValueError(f"its topics cannot be read ({error})") from error
        self.connections = [
            connection._replace(msgcount=counts[connection.id]) for connection in self.connections
        ]

    def messages(
        self, connections: Collection[Any], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[Any, int, bytes]]:
        """Messages of the connections with start <= time < stop (ns), in the order they were
        recorded."""
        wanted = {connection.id: connection for connection in connections}
        for topic, time, data in self._walk("data"):
            if (
                topic in wanted
                and (start is None or time >= start)
                and (stop is None or time < stop)
            ):
                yield wanted[topic], time, data

    def close(self) -> None:
        """Nothing stays open."""

    def _connect(self) -> sqlite3.Connection:
        """Read-only; with the write-ahead log that a killed recorder left, unless the folder
        forbids that."""
        for mode in ("mode=ro", "immutable=1") if has_log(self.path) else ("immutable=1",):
            address = f"{self.path.absolute().as_uri()}?{mode}"
            database = sqlite3.connect(address, uri=True, check_same_thread=False)
            try:
                database.execute("SELECT id FROM topics LIMIT 1")
            except sqlite3.Error:
                database.close()
                continue
            return database
        raise sqlite3.DatabaseError("not an sqlite bag")

    def _walk(self, column: str) -> Iterator[tuple[int, int, Any]]:
        with closing(self._connect()) as database:
            query = f"SELECT topic_id, timestamp, {column} FROM messages WHERE id = ?"
            row_id, gap, damaged, last_damaged = 0, 0, 0, 0
            while gap < _MAX_GAP:
                row_id += 1
                gap += 1
                try:
                    row = database.execute(query, (row_id,)).fetchone()
                except sqlite3.Error:
                    damaged += 1
                    continue
                if row is not None and isinstance(row[1], int):
                    gap, last_damaged = 0, damaged
                    yield row
            if damaged:
                self.lost = f"corrupt pages: {last_damaged or 'the last'} messages cannot be read"


def has_log(path: Path) -> bool:
    """Whether an sqlite file has a write-ahead log beside it that was never merged."""
    log = path.with_name(path.name + "-wal")
    return log.exists() and log.stat().st_size > 0
