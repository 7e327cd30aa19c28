"""The files of a bag, opened one after the other: rosbag2 folders (split, compressed), single
storage files, ROS 1 bags.

`rosbags` does the reading. Where a file is damaged, `salvage` reads what is left, and `lost` says
in words what is not.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import yaml
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1 import reader as rosbag1
from rosbags.rosbag2 import Reader as Ros2Reader
from rosbags.rosbag2 import storage_mcap

from flow3r_ros.bags.formats import ZSTD_MAGIC, BagFormat, bag_format, is_packed
from flow3r_ros.bags.limits import UnpackError, file_limit, pieces, unpack
from flow3r_ros.bags.salvage import SalvagedMcap, SalvagedSqlite, has_log
from flow3r_ros.bags.salvage_ros1 import SalvagedRos1
from flow3r_ros.bags.types import ros1_types, ros2_types
from flow3r_ros.errors import BagError
from flow3r_ros.paths import natural_key

METADATA = "metadata.yaml"
_READ: dict[BagFormat, Any] = {
    "mcap": Ros2Reader.STORAGE_PLUGINS[".mcap"],
    "sqlite3": Ros2Reader.STORAGE_PLUGINS[".db3"],
    "ros1": Ros1Reader,
}
_SALVAGE: dict[BagFormat, Any] = {
    "mcap": SalvagedMcap,
    "sqlite3": SalvagedSqlite,
    "ros1": SalvagedRos1,
}
_READABLE = ("cdr", "ros1")
"""message encodings that can be read"""

storage_mcap.DECOMPRESSORS.update(
    zstd=lambda packed, size: unpack(packed, "zstd", size),
    lz4=lambda packed, size: unpack(packed, "lz4", size),
)
rosbag1.decompressors.update(
    bz2=lambda packed: unpack(packed, "bz2"), lz4=lambda packed: unpack(packed, "lz4")
)


class Storage:
    """Every message of a bag in recorded order, file after file; use as a context manager.

    `path` may also be the metadata.yaml of a bag folder. What is packed unpacks within
    `limits.MAX_UNPACKED`.

    Attributes: `topics` maps topic to (type, count); `lost` lists in words what could not be read;
    `start_ns` is the time of the first message. Raises BagError when nothing can be read at all.
    """

    def __init__(self, path: Path) -> None:
        self.path = path.parent if path.name == METADATA else path
        self._lost: list[str] = []
        self.topics: dict[str, tuple[str, int]] = {}
        self._parts: list[_Part] = []
        self._encodings: dict[str, str] = {}
        self._stack = ExitStack()

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
                self._encodings[connection.topic] = part.encoding(connection)
        others = sorted(set(self._encodings.values()) - set(_READABLE))
        if others and not set(self._encodings.values()) & set(_READABLE):
            self.__exit__()
            raise BagError(
                f"{self.path}: its messages are {', '.join(others)}, not ROS messages",
                "convert it to a rosbag2 with ROS 2 messages",
            )
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
        return list(self._lost)

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
                yield connection.topic, time, data
            if part.lost and part.lost not in self._lost:
                self._lost.append(part.lost)

    def deserialize(self, topic: str, data: bytes) -> Any:
        """Message object of serialized bytes, unpacked first where the recorder packed each
        message.

        Raises BagError when they do not fit the topic's type, are damaged, or unpack to more than
        `limits.MAX_UNPACKED`.
        """
        kind = self.topics[topic][0]
        try:
            if self._encodings[topic] == "ros1":
                return ros1_types().deserialize_ros1(data, kind)
            if data[:4] == ZSTD_MAGIC:
                data = unpack(data, "zstd")
            return ros2_types().deserialize_cdr(data, kind)
        except Exception as error:
            raise BagError(
                f"{self.path}: a message on {topic} cannot be read as {kind} ({error})"
            ) from error

    def _files(self) -> list[Path]:
        """Storage files in order, each once: those metadata.yaml names, or whatever lies in the
        folder."""
        if self.path.is_file():
            return [self.path]
        found = bag_files(self.path)
        metadata = self.path / METADATA
        if not metadata.exists():
            if not any(bag_format(file) == "ros1" for file in found):
                self._lost.append(f"{METADATA} is missing; the files were read without it")
            return found
        try:
            names = yaml.safe_load(metadata.read_text(encoding="utf-8"))[
                "rosbag2_bagfile_information"
            ]["relative_file_paths"]
            files = [_present(self.path / Path(str(name)).name) for name in names]
        except (OSError, yaml.YAMLError, KeyError, TypeError, ValueError, RecursionError):
            self._lost.append(f"{METADATA} cannot be read; the files were read without it")
            return found
        self._lost += [f"{file.name} is missing" for file in files if not file.exists()]
        return list(dict.fromkeys(file for file in files if file.exists()))

    def _open_part(self, file: Path) -> None:
        kind = bag_format(file)
        try:
            if kind is None:
                raise BagError(f"{file}: {'is empty' if _empty(file) else 'is not a bag file'}")
            part = _Part(self._unpacked(file) if is_packed(file) else file, kind)
            part.open()
        except BagError as error:
            self._lost.append(str(error))
            return
        if part.lost:
            self._lost.append(part.lost)
        self._stack.callback(part.close)
        self._parts.append(part)

    def _unpacked(self, file: Path) -> Path:
        """The file unpacked into a temporary folder; what a torn one still holds.

        Raises BagError when it holds more than `limits.file_limit` or half of the free space.
        """
        folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="flow3r_bag_")))
        target = folder / file.stem
        limit = min(file_limit(file.stat().st_size), shutil.disk_usage(folder).free // 2)
        written = 0
        with file.open("rb") as packed, target.open("wb") as plain:
            try:
                for piece in pieces(iter(lambda: packed.read(1 << 14), b""), "zstd", limit):
                    written += plain.write(piece)
            except UnpackError as error:
                if "more than" in str(error):
                    plain.truncate(0)
                    raise BagError(
                        f"{file}: unpacks to more than {limit} bytes",
                        "if it is what it should be, unpack it with `zstd -d` and give the result",
                    ) from error
                self._lost.append(f"{file.name}: {error}")
        return target


class _Part:
    """One storage file: rosbags' reader, replaced by the salvager the moment it fails."""

    def __init__(self, file: Path, kind: BagFormat) -> None:
        self.file = file
        self.lost = ""
        self.reader: Any = None
        self._kind = kind

    @property
    def connections(self) -> list[Any]:
        return list(self.reader.connections)

    def encoding(self, connection: Any) -> str:
        """How the messages of a connection are serialized: `cdr`, `ros1`, or something else."""
        if self._kind == "ros1":
            return "ros1"
        if isinstance(self.reader, SalvagedMcap | SalvagedSqlite):
            return str(connection.encoding)
        return str(connection.ext.serialization_format)

    def open(self) -> None:
        if self._kind == "sqlite3" and has_log(self.file):
            self._salvage(ValueError("with the log of an unfinished recording"))
            return
        try:
            self.reader = _READ[self._kind](self.file)
            self.reader.open()
        except Exception as error:
            self._salvage(error)

    def close(self) -> None:
        with suppress(Exception):
            self.reader.close()

    def start_ns(self) -> int:
        known = getattr(self.reader, "metadata", self.reader)
        if hasattr(known, "start_time"):
            return int(known.start_time)
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
            self.close()
            self._salvage(error)
            wanted = [connection for connection in self.connections if connection.topic in topics]
            yield from self.reader.messages(wanted, start if last is None else last + 1, stop)
        if (
            isinstance(self.reader, SalvagedMcap | SalvagedSqlite | SalvagedRos1)
            and self.reader.lost
        ):
            self.lost = f"{self.file.name}: {self.reader.lost}"

    def _salvage(self, error: Exception) -> None:
        """Go on with what can be read; BagError when that is nothing."""
        try:
            self.reader = _SALVAGE[self._kind](self.file)
        except (ValueError, OSError) as nothing:
            raise BagError(f"{self.file}: {nothing}", "record the bag again") from error
        words = self.reader.lost or f"read without its index ({_words(error)})"
        if any(connection.encoding == "ros1" for connection in self.reader.connections):
            words = self.reader.lost or "ROS 1 messages, read record by record"
            words = f"{words} (`rosbag reindex` makes an index)" if self._kind == "ros1" else words
        self.lost = f"{self.file.name}: {words}"


def bag_files(folder: Path) -> list[Path]:
    """Bag files of a folder in natural order; of `x.db3` and `x.db3.zstd`, which are one file, the
    unpacked one."""
    found = sorted((file for file in folder.iterdir() if bag_format(file)), key=natural_key)
    return [file for file in found if not is_packed(file) or file.with_suffix("") not in found]


def _present(file: Path) -> Path:
    """The file that metadata.yaml names, or the same one packed or unpacked where that lies there
    instead."""
    packed = file.with_name(f"{file.name}.zstd")
    unpacked = file.with_suffix("") if file.suffix == ".zstd" else file
    usable = (other for other in (unpacked, file, packed) if bag_format(other))
    return next(usable, file)


def _empty(file: Path) -> bool:
    return file.stat().st_size == 0


def _words(error: Exception) -> str:
    return str(error) or type(error).__name__
