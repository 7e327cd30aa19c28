"""The replay suite measures what the issue asks for, on bags of a second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.bags import bench
from flow3r_ros.bags.reader import BagReader
from flow3r_ros.evaluation.bench_odometry import CAMERA, PlanePredictor, plane_picture


def test_io_and_shares(tmp_path: Path) -> None:
    pictures = [plane_picture(index) for index in range(5)]
    raw = bench._write(tmp_path / "raw", CAMERA, pictures, 5, compressed=False)
    jpeg = bench._write(tmp_path / "jpeg", CAMERA, pictures, 5, compressed=True)
    rows = bench._io_rows(raw, jpeg, pictures, tmp_path)
    assert [row["ratio"] > 0 for row in rows] == [True] * 3
    shares = {row["name"]: row["median"] for row in bench._share_rows("free", PlanePredictor(), raw, tmp_path / "out")}
    assert all(0 <= share <= 100 for share in shares.values())
    assert "free: reading, decoding and writing" in shares
    speed, error = bench._mode_rows("free", PlanePredictor(), raw, tmp_path)
    assert speed["ratio"] > 0
    assert error["median"] < 0.05


def test_the_long_bag_goes_back_and_forth(tmp_path: Path) -> None:
    pictures = [np.asarray(cv2.resize(plane_picture(index), (160, 120)), np.uint8) for index in range(4)]
    bag = bench._write(tmp_path / "bag", bench._SMALL, pictures, 9, compressed=True)
    with BagReader(bag) as reader:
        frames = list(reader.frames())
    assert [bench._turn(index, 4) for index in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert np.array_equal(frames[1].rgb, frames[5].rgb)
    assert not np.array_equal(frames[1].rgb, frames[2].rgb)
