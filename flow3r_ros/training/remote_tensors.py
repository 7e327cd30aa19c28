"""One row of every tensor of a safetensors file, here or in object storage, where only the bytes of
that row are read."""

from __future__ import annotations

import json
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from flow3r_ros.errors import TrainingError
from flow3r_ros.storage import Location, RemotePath

_HEADER_LIMIT = 100_000_000
"""bytes that safetensors allows a header"""
_DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "U8": "u1"}


def shape_of(path: Location, name: str) -> tuple[int, ...]:
    """The shape of a tensor. Raises TrainingError for a damaged file."""
    try:
        if isinstance(path, RemotePath):
            return tuple(_header(path)[1][name]["shape"])
        with safe_open(path, framework="np") as file:
            return tuple(file.get_slice(name).get_shape())
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def read_row(path: Location, index: int) -> dict[str, NDArray[Any]]:
    """Row `index` of every tensor. Raises TrainingError for a damaged file."""
    try:
        if not isinstance(path, RemotePath):
            with safe_open(path, framework="np") as file:
                return {name: file.get_slice(name)[index] for name in file.keys()}  # noqa: SIM118
        start, tensors = _header(path)
        return {name: _row(path, start, facts, index) for name, facts in tensors.items()}
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(path, error) from error


def _row(path: RemotePath, start: int, facts: dict[str, Any], index: int) -> NDArray[Any]:
    shape, dtype = tuple(facts["shape"][1:]), np.dtype(_DTYPES[facts["dtype"]])
    size = prod(shape) * dtype.itemsize
    first = start + int(facts["data_offsets"][0]) + index * size
    return np.frombuffer(path.read_range(first, first + size), dtype).reshape(shape).copy()


@lru_cache(maxsize=4096)
def _header(path: RemotePath) -> tuple[int, dict[str, Any]]:
    """Where the data begins, and what is known of every tensor."""
    length = int.from_bytes(path.read_range(0, 8), "little")
    if not 0 < length < _HEADER_LIMIT:
        raise ValueError("no header")
    header = dict(json.loads(path.read_range(8, 8 + length)))
    header.pop("__metadata__", None)
    return 8 + length, header


def _damaged(path: Location, error: Exception) -> TrainingError:
    return TrainingError(f"{path}: is not a readable shard ({error})", "delete it and render again")
