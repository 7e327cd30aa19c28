"""The files of a bag, opened one after the other: rosbag2 folders (split, compressed), single
storage files, ROS 1 bags.

`rosbags` does the reading. Where a file is damaged, `salvage` reads what is left, and `lost` says
in words what is not.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag2 import Reader as Ros2Reader

from flow3r_ros.bags.salvage import SalvagedMcap, SalvagedSqlite, has_log, zstd
from flow3r_ros.bags.types import ros1_types, ros2_types
from flow3r_ros.errors import BagError

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_SALVAGE: dict[str, Any] = {".mcap": SalvagedMcap, ".db3": SalvagedSqlite}


class Storage:
    """Every message of a bag in recorded order, file after file; use as a context manager.

    Attributes: `topics` maps topic to (type, count); `lost` lists in words what could not be read;
    `start_ns` is the time of the first message. Raises BagError when nothing can be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lost: list[str] = []
        self._damaged = 0
        self.topics: dict[str, tuple[str, int]] = {}
        self._parts: list[_Part] = []
        self._stack = ExitStack()
        self._ros1 = path.suffix == ".bag"

    def __enter__(self) -> Storage:
        if not self.path.exists():
            raise BagError(f"{self.path}: no such bag", "check the path")
        try:
            for file in self._files():
                self._open_part(file)
        except BaseException:
            self.__exit__()
            raise
        for part in self._parts:
            for connection in part.connections:
                count = self.topics.get(connection.topic, ("", 0))[1]
                self.topics[connection.topic] = (connection.msgtype, count + connection.msgcount)
        if not self._parts:
            self.__exit__()
            raise BagError(
                f"{self.path}: nothing can be read "
                f"({'; '.join(self.lost) or 'no bag files in it'})",
                "record the bag again",
            )
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._parts.clear()

    @property
    def lost(self) -> list[str]:
        """What could not be read, in words."""
        return [
            *self._lost,
            *([f"{self._damaged} messages cannot be decompressed"] if self._damaged else []),
        ]

    @property
    def start_ns(self) -> int:
        """Receive time of the earliest message, nanoseconds."""
        return min((part.start_ns() for part in self._parts), default=0)

    def messages(
        self, topics: Collection[str], start: int | None = None, stop: int | None = None
    ) -> Iterator[tuple[str, int, bytes]]:
        """(topic, receive time ns, serialized message) of the topics with start <= time < stop."""
        for part in self._parts:
            for connection, time, data in part.messages(topics, start, stop):
                if data[:4] == _ZSTD_MAGIC and not self._ros1:
                    try:
                        data = zstd.decompress(data)
                    except zstd.ZstdError:
                        self._damaged += 1
                        continue
                yield connection.topic, time, data
            if part.lost and part.lost not in self._lost:
                self._lost.append(part.lost)

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Message object of serialized bytes; raises BagError when they do not fit the topic's
        type."""
        kind = self.topics[topic][0]
        try:
            return (
                ros1_types().deserialize_ros1(data, kind)
                if self._ros1
                else ros2_types().deserialize_cdr(data, kind)
            )
        except Exception as error:
            raise BagError(
                f"{self.path}: a message on {topic} cannot be read as {kind} ({error})"
            ) from error

    def _files(self) -> list[Path]:
        """Storage files in order: those metadata.yaml names, or whatever lies in the folder."""
        if self.path.is_file():
            return [self.path]
        found = sorted(
            (file for file in self.path.iterdir() if _storage_suffix(file)), key=_natural
        )
        if not found and any(self.path.glob("*.bag")):
            raise BagError(f"{self.path}: a folder of ROS 1 bags", "give one .bag file")
        metadata = self.path / "metadata.yaml"
        if not metadata.exists():
            self._lost.append("metadata.yaml is missing; the files were read without it")
            return found
        try:
            names = yaml.safe_load(metadata.read_text(encoding="utf-8"))[
                "rosbag2_bagfile_information"
            ]["relative_file_paths"]
            files = [self.path / Path(str(name)).name for name in names]
        except (OSError, yaml.YAMLError, KeyError, TypeError, UnicodeDecodeError):
            self._lost.append("metadata.yaml cannot be read; the files were read without it")
            return found
        self._lost += [f"{file.name} is missing" for file in files if not file.exists()]
        return [file for file in files if file.exists()]

    def _open_part(self, file: Path) -> None:
        if file.suffix == ".zstd":
            file = self._decompressed(file)
        part = _Part(file)
        try:
            part.open()
        except BagError as error:
            self._lost.append(str(error))
            return
        if part.lost:
            self._lost.append(part.lost)
        self._stack.callback(part.close)
        self._parts.append(part)

    def _decompressed(self, file: Path) -> Path:
        """The file unpacked into a temporary folder; what a torn one still holds."""
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="flow3r_bag_")))
        target = folder / file.stem
        decompressor = zstd.ZstdDecompressor()
        with file.open("rb") as packed, target.open("wb") as plain:
            try:
                while not decompressor.eof and (block := packed.read(1 << 14)):
                    plain.write(decompressor.decompress(block))
            except zstd.ZstdError as error:
                self._lost.append(f"{file.name}: compressed data is damaged ({error})")
        return target


class _Part:
    """One storage file: rosbags' reader, replaced by the salvager the moment it fails."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.lost = ""
        self.reader: Any = None

    @property
    def connections(self) -> list[Any]:
        return list(self.reader.connections)

    def open(self) -> None:
        if self.file.suffix == ".db3" and has_log(self.file):
            self._salvage(ValueError("with the log of an unfinished recording"))
            return
        try:
            self.reader = (
                Ros1Reader(self.file) if self.file.suffix == ".bag" else Ros2Reader(self.file)
            )
            self.reader.open()
        except Exception as error:
            self._salvage(error)

    def close(self) -> None:
        with suppress(Exception):
            self.reader.close()

    def start_ns(self) -> int:
        if hasattr(self.reader, "start_time"):
            return int(self.reader.start_time)
        return next(
            (time for _, time, _ in self.reader.messages(self.reader.connections)), 2**63 - 1
        )

    def messages(
        self, topics: Collection[str], start: int | None, stop: int | None
    ) -> Iterator[tuple[Any, int, bytes]]:
        wanted = [connection for connection in self.connections if connection.topic in topics]
        last: int | None = None
        try:
            if wanted:
                for item in self.reader.messages(wanted, start, stop):
                    last = item[1]
                    yield item
        except GeneratorExit:
            raise
        except Exception as error:
            if self.file.suffix == ".bag" and last is not None:
                self.lost = f"{self.file.name}: cannot be read to its end ({_words(error)})"
                return
            self.close()
            self._salvage(error)
            wanted = [connection for connection in self.connections if connection.topic in topics]
            yield from self.reader.messages(wanted, start if last is None else last + 1, stop)
        if isinstance(self.reader, SalvagedMcap | SalvagedSqlite) and self.reader.lost:
            self.lost = f"{self.file.name}: {self.reader.lost}"

    def _salvage(self, error: Exception) -> None:
        """Go on with what can be read; BagError when that is nothing."""
        salvager = _SALVAGE.get(self.file.suffix)
        if salvager is None:
            raise BagError(f"{self.file}: {_words(error)}", "run `rosbag reindex` on it") from error
        try:
            self.reader = salvager(self.file)
        except (ValueError, OSError) as nothing:
            raise BagError(f"{self.file}: {nothing}") from error
        self.lost = (
            f"{self.file.name}: {self.reader.lost or f'read without its index ({_words(error)})'}"
        )


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__


def _storage_suffix(file: Path) -> bool:
    return any(suffix in _SALVAGE for suffix in file.suffixes[-2:]) and file.suffix in (
        *_SALVAGE,
        ".zstd",
    )


def _natural(path: Path) -> list[Any]:
    """Sort key that puts part_2 before part_10."""
    return [int(piece) if piece.isdigit() else piece for piece in re.split(r"(\d+)", path.name)]
