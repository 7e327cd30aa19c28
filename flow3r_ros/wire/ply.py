"""Point clouds as binary PLY files that CloudCompare, MeshLab and Open3D read: x y z, red green
blue, confidence."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flow3r_ros.errors import InputError
from flow3r_ros.types import Float32, UInt8

_VERTEX = np.dtype(
    [
        ("x", "<f4"),
        ("y", "<f4"),
        ("z", "<f4"),
        ("red", "u1"),
        ("green", "u1"),
        ("blue", "u1"),
        ("confidence", "<f4"),
    ],
)
_NAMES = {"<f4": "float", "|u1": "uchar"}


def write_ply(path: Path, points: Float32, rgb: UInt8, confidence: Float32) -> None:
    """Write points `[M, 3]`, colours uint8 `[M, 3]` and confidence `[M]` in [0, 1]; points that are
    not finite are left out."""
    keep = np.isfinite(points).all(axis=1)
    vertices = np.empty(int(keep.sum()), _VERTEX)
    for axis, name in enumerate("xyz"):
        vertices[name] = points[keep, axis]
    for channel, name in enumerate(("red", "green", "blue")):
        vertices[name] = rgb[keep, channel]
    vertices["confidence"] = confidence[keep]
    properties = [f"property {_NAMES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    header = [
        "ply",
        "format binary_little_endian 1.0",
        f"element vertex {len(vertices)}",
        *properties,
        "end_header",
    ]
    with path.open("wb") as file:
        file.write(("\n".join(header) + "\n").encode("ascii"))
        file.write(vertices.tobytes())


def read_ply(path: Path) -> tuple[Float32, UInt8]:
    """Points `[M, 3]` and colours `[M, 3]` of a file that `write_ply` wrote. Raises InputError for
    any other."""
    data = path.read_bytes()
    header, found, body = data.partition(b"end_header\n")
    wanted = [f"property {_NAMES[_VERTEX[name].str]} {name}" for name in _VERTEX.names or ()]
    lines = header.decode("ascii", errors="replace").splitlines()
    if not found or lines[3:] != wanted or len(body) % _VERTEX.itemsize:
        raise InputError(f"{path}: not a cloud of ours", "give a cloud.ply of `flow3r run`")
    vertices = np.frombuffer(body, _VERTEX)
    points = np.stack([vertices[axis] for axis in "xyz"], axis=1)
    rgb = np.stack([vertices[channel] for channel in ("red", "green", "blue")], axis=1)
    return points, rgb
