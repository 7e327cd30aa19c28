"""A PCD file says what is in it, and holds every finite point."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from flow3r_ros.wire.pcd import write_pcd


def test_points_come_back_and_those_not_finite_are_left_out(tmp_path: Path) -> None:
    points = np.array([[1, 2, 3], [np.nan, 0, 0], [4, 5, 6]], np.float32)
    rgb = np.array([[10, 20, 30], [0, 0, 0], [40, 50, 60]], np.uint8)
    write_pcd(tmp_path / "cloud.pcd", points, rgb, np.array([0.5, 0.1, 1.0], np.float32))
    header, _, body = (tmp_path / "cloud.pcd").read_bytes().partition(b"DATA binary\n")
    told = {line.split()[0]: line.split()[1:] for line in header.decode("ascii").splitlines()}
    assert (told["WIDTH"], told["HEIGHT"], told["POINTS"]) == (["2"], ["1"], ["2"])
    kinds = zip(told["FIELDS"], told["TYPE"], told["SIZE"], strict=True)
    dtype = np.dtype([(name, f"<{kind.lower()}{size}") for name, kind, size in kinds])
    first, second = np.frombuffer(body, dtype).tolist()
    assert first == (1, 2, 3, 0x0A141E, 0.5)
    assert second == (4, 5, 6, 0x28323C, 1.0)
