"""Writes a rosbag2 that RViz, Foxglove and `ros2 bag play` take: topics, types, definitions and QoS
included.

The writer fills a folder that its caller owns; `paths.OutputFolder` gives it a temporary
name until everything is complete.
"""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

from rosbags.interfaces import (
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer

from flow3r_ros.bags.types import ros2_types
from flow3r_ros.errors import OutputError, cause_of

_FOREVER = QosTime(9223372036, 854775807)
_PLUGINS = {"mcap": StoragePlugin.MCAP, "sqlite3": StoragePlugin.SQLITE3}


class BagWriter:
    """Writes messages made by `bags.types.make`; a context manager that completes the bag only when
    no error came through.

    Args:
        folder: bag folder to create; its name is the name of the storage file too.
        storage: `mcap` or `sqlite3`.

    Raises OutputError when the disk is full or the folder cannot be written.
    """

    def __init__(self, folder: Path, storage: Literal["mcap", "sqlite3"] = "mcap") -> None:
        self.folder = folder
        self._writer = Writer(folder, version=9, storage_plugin=_PLUGINS[storage])
        self._connections: dict[str, Any] = {}

    def __enter__(self) -> BagWriter:
        self._guarded(self._writer.open)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self._guarded(self._writer.close)
        else:
            self._writer.abort()

    def add(self, topic: str, type_name: str, latched: bool = False) -> None:
        """Declare a topic: reliable (REP-2003), kept for late subscribers when `latched`."""
        qos = Qos(
            QosHistory.KEEP_LAST,
            1 if latched else 10,
            QosReliability.RELIABLE,
            QosDurability.TRANSIENT_LOCAL if latched else QosDurability.VOLATILE,
            _FOREVER,
            _FOREVER,
            QosLiveliness.AUTOMATIC,
            _FOREVER,
            avoid_ros_namespace_conventions=False,
        )
        declare = self._writer.add_connection
        self._connections[topic] = self._guarded(
            lambda: declare(topic, type_name, typestore=ros2_types(), offered_qos_profiles=[qos])
        )

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """Append a message, or the CDR bytes of one (from a raw subscription, say), to a declared
        topic at `stamp_ns` nanoseconds."""
        connection = self._connections[topic]
        data = (
            message
            if isinstance(message, bytes)
            else ros2_types().serialize_cdr(message, connection.msgtype)
        )
        self._guarded(lambda: self._writer.write(connection, stamp_ns, data))

    def _guarded(self, action: Any) -> Any:
        try:
            return action()
        except Exception as error:
            raise OutputError(
                f"{self.folder}: cannot be written ({cause_of(error)})",
                "check free space and permissions",
            ) from error


class WriteBehind:
    """Serializes and writes the messages of a BagWriter in another thread, in the order given; a
    context manager.

    Memory is bounded: at most `DEPTH` messages wait. An error of the writer is raised here, at one
    of the next calls or at the end. `busy_s` is the time the thread spent.
    """

    DEPTH = 32

    def __init__(self, writer: BagWriter) -> None:
        self.busy_s = 0.0
        self._writer = writer
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="write behind")
        self._waiting: deque[Future[None]] = deque()

    def __enter__(self) -> WriteBehind:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._thread.shutdown(cancel_futures=kind is not None)
        if kind is None:
            self.flush()

    def write(self, topic: str, stamp_ns: int, message: Any) -> None:
        """As `BagWriter.write`; nobody may change the message afterwards."""
        while self._waiting and (len(self._waiting) >= self.DEPTH or self._waiting[0].done()):
            self._waiting.popleft().result()
        self._waiting.append(self._thread.submit(self._write, topic, stamp_ns, message))

    def flush(self) -> None:
        """Wait until everything given is with the writer."""
        while self._waiting:
            self._waiting.popleft().result()

    def _write(self, topic: str, stamp_ns: int, message: Any) -> None:
        start = perf_counter()
        self._writer.write(topic, stamp_ns, message)
        self.busy_s += perf_counter() - start
