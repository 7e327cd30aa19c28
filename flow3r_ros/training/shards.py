"""Small self-checking files: arrays and metadata in safetensors, followed by their own SHA-256.

Clips and flow labels are stored this way: a half-written, truncated or damaged file cannot be taken
for a good one, and a writer that dies or meets a full disk leaves nothing under a final name.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from flow3r_ros.errors import TrainingError
from flow3r_ros.storage import Location, RemotePath, write

DIGEST_BYTES = 32
GLANCE_BYTES = 1 << 15
"""bytes that hold the header of nearly every shard"""
Arrays = dict[str, NDArray[Any]]


class ShardError(TrainingError):
    """A shard is missing, truncated or does not match its own hash."""


def content_key(*parts: Any) -> str:
    """SHA-256 (hex) of JSON-serialisable parts: the content address of whatever they determine."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def pack_shard(arrays: Arrays, metadata: dict[str, Any]) -> bytes:
    """Serialise named arrays and JSON metadata, hash appended."""
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    payload: bytes = safetensors.numpy.save(
        contiguous, metadata={"json": json.dumps(metadata, sort_keys=True)}
    )
    return payload + hashlib.sha256(payload).digest()


def unpack_shard(data: bytes, where: str) -> tuple[Arrays, dict[str, Any]]:
    """Inverse of `pack_shard`. Raises ShardError naming `where` when the hash does not fit."""
    payload, digest = data[:-DIGEST_BYTES], data[-DIGEST_BYTES:]
    if len(data) <= DIGEST_BYTES or hashlib.sha256(payload).digest() != digest:
        raise ShardError(
            f"{where}: the shard is damaged (its hash does not fit)",
            "run flow3r label again, it is made anew",
        )
    try:
        header_bytes = int.from_bytes(payload[:8], "little")
        header = json.loads(payload[8 : 8 + header_bytes])
        metadata = dict(json.loads(header["__metadata__"]["json"]))
        return safetensors.numpy.load(payload), metadata
    except (
        safetensors.SafetensorError,
        ValueError,
        KeyError,
        TypeError,
        RecursionError,
    ) as error:
        raise ShardError(
            f"{where}: is no shard of ours ({type(error).__name__})",
            "remove it and run flow3r label again",
        ) from error


def write_shard(path: Location, arrays: Arrays, metadata: dict[str, Any]) -> None:
    """`pack_shard` to a file, atomically. Raises OutputError or StorageError."""
    write(path, pack_shard(arrays, metadata))


def read_bytes(path: Location) -> bytes:
    """The bytes of a shard file. Raises ShardError when it is missing, StorageError when storage
    cannot be reached."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ShardError(
            f"{path}: the shard cannot be read ({error.strerror or 'it is missing'})",
            "run flow3r label again, it is made anew",
        ) from error


def read_shard(path: Location) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and metadata of a shard file. Raises ShardError when it is missing or damaged."""
    return unpack_shard(read_bytes(path), str(path))


def glance(path: Location) -> dict[str, Any]:
    """Metadata of a shard. Here the whole shard is read and its hash checked; in storage the size
    must be what the header says, which finds what is half written for the price of the header.
    Raises ShardError when it is missing or damaged."""
    if not isinstance(path, RemotePath):
        return read_shard(path)[1]
    try:
        size, head = path.size(), b""
        if size > DIGEST_BYTES + 8:
            head = path.read_range(0, min(size, GLANCE_BYTES))
            end = 8 + int.from_bytes(head[:8], "little")
            if len(head) < end <= size:
                head = path.read_range(0, end)
            header = json.loads(head[8:end])
            metadata = json.loads(header.pop("__metadata__")["json"])
            ends = [int(facts["data_offsets"][1]) for facts in header.values()]
            if size == end + max(ends, default=0) + DIGEST_BYTES:
                return dict(metadata)
    except FileNotFoundError as error:
        raise ShardError(f"{path}: the shard is missing", "run flow3r label again") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ShardError(f"{path}: the shard is damaged", "run flow3r label again") from error
    raise ShardError(f"{path}: the shard is cut off ({size} bytes)", "run flow3r label again")


def looks_whole(path: Location) -> bool:
    """Whether a shard is there and nothing at a `glance` speaks against it."""
    try:
        glance(path)
    except ShardError:
        return False
    return True


def is_whole(path: Location) -> bool:
    """Whether a shard file is there and its hash fits."""
    try:
        read_shard(path)
    except ShardError:
        return False
    return True
