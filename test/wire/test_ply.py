"""A PLY file says what is in it, and holds every finite point."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import InputError
from flow3r_ros.wire.ply import read_ply, write_ply


def test_points_come_back_and_those_not_finite_are_left_out(tmp_path: Path) -> None:
    points = np.array([[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]], np.float32)
    rgb = np.array([[10, 20, 30], [0, 0, 0], [40, 50, 60]], np.uint8)
    write_ply(tmp_path / "cloud.ply", points, rgb, np.array([0.5, 0.1, 1.0], np.float32))
    header, _, body = (tmp_path / "cloud.ply").read_bytes().partition(b"end_header\n")
    lines = header.decode("ascii").splitlines()
    assert lines[:3] == ["ply", "format binary_little_endian 1.0", "element vertex 2"]
    kinds = {"float": "<f4", "uchar": "u1"}
    dtype = np.dtype([(line.split()[2], kinds[line.split()[1]]) for line in lines[3:]])
    vertices = np.frombuffer(body, dtype)
    assert dtype.names == ("x", "y", "z", "red", "green", "blue", "confidence")
    assert vertices.tolist() == [(1, 2, 3, 10, 20, 30, 0.5), (4, 5, 6, 40, 50, 60, 1.0)]
    read, colours = read_ply(tmp_path / "cloud.ply")
    np.testing.assert_array_equal(read, points[[0, 2]])
    np.testing.assert_array_equal(colours, rgb[[0, 2]])
    (tmp_path / "other.ply").write_bytes(b"ply\nformat ascii 1.0\nend_header\n")
    with pytest.raises(InputError, match="not a cloud of ours"):
        read_ply(tmp_path / "other.ply")


def test_an_empty_cloud_is_a_valid_file(tmp_path: Path) -> None:
    write_ply(
        tmp_path / "cloud.ply",
        np.empty((0, 3), np.float32),
        np.empty((0, 3), np.uint8),
        np.empty(0, np.float32),
    )
    assert b"element vertex 0" in (tmp_path / "cloud.ply").read_bytes()
