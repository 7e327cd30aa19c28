"""Small self-checking files: arrays and metadata in safetensors, followed by their own SHA-256.

Clips and flow labels are stored this way: a half-written, truncated or damaged file cannot be taken
for a good one, and a writer that dies or meets a full disk leaves nothing under a final name.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from flow3r_ros.errors import OutputError, TrainingError

DIGEST_BYTES = 32
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
    header_bytes = int.from_bytes(payload[:8], "little")
    header = json.loads(payload[8 : 8 + header_bytes])
    return safetensors.numpy.load(payload), json.loads(header["__metadata__"]["json"])


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes so that `path` holds either the old or the whole new content, also after a crash.

    Raises OutputError when the disk is full or the folder cannot be written; the partial file is
    removed.
    """
    partial = ""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, partial = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        if partial:
            Path(partial).unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        cure = (
            "free some space and run again: finished shards are kept"
            if full
            else "check the folder and its permissions"
        )
        raise OutputError(
            f"{path}: {'the disk is full' if full else f'cannot be written ({error.strerror})'}",
            cure,
        ) from error


def write_shard(path: Path, arrays: Arrays, metadata: dict[str, Any]) -> None:
    """`pack_shard` to a file, atomically. Raises OutputError."""
    write_atomically(path, pack_shard(arrays, metadata))


def read_shard(path: Path) -> tuple[Arrays, dict[str, Any]]:
    """Arrays and metadata of a shard file. Raises ShardError when it is missing or damaged."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ShardError(
            f"{path}: the shard cannot be read ({error.strerror})",
            "run flow3r label again, it is made anew",
        ) from error
    return unpack_shard(data, str(path))


def is_whole(path: Path) -> bool:
    """Whether a shard file is there and its hash fits."""
    try:
        read_shard(path)
    except ShardError:
        return False
    return True
