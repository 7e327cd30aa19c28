"""The replay suite measures what the issue asks for, on bags of a second."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bench import replay as bench
from flow3r_ros.bench.memory import small_pictures, there_and_back
from flow3r_ros.bench.plane_scene import CAMERA, PlanePredictor, PlaneScene, plane_picture
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.tum import write_tum


def test_io_stands_beside_plain_rosbags(tmp_path: Path) -> None:
    pictures = [plane_picture(index) for index in range(3)]
    raw = bench._write(tmp_path / "raw", CAMERA, pictures, 3, compressed=False)
    jpeg = bench._write(tmp_path / "jpeg", CAMERA, pictures, 3, compressed=True)
    rows = bench._io_rows(raw, jpeg, pictures, tmp_path)
    assert [row["ratio"] > 0 for row in rows] == [True] * 3


def test_shares_speed_and_error_of_a_clip(tmp_path: Path) -> None:
    clip = tmp_path / "plane"
    (clip / "frames").mkdir(parents=True)
    for index in range(8):
        cv2.imwrite(str(clip / "frames" / f"{index:03d}.jpg"), plane_picture(index)[..., ::-1])
    stamps = np.arange(1, 9) * 100_000_000  # a stamp of zero is none
    (clip / "timestamps.txt").write_text("".join(f"{stamp / 1e9:.6f}\n" for stamp in stamps))
    save_camera(CAMERA, clip / "camera.json")
    write_tum(
        clip / "groundtruth.tum",
        Trajectory(stamps, np.stack([PlaneScene().pose(index) for index in range(8)])),
    )
    rows = {row["name"]: row for row in bench._replay_rows(PlanePredictor(), clip, tmp_path)}
    shares = {
        name.split(": ")[1]: row["median"] for name, row in rows.items() if row["unit"] == "%"
    }
    assert all(0 <= share <= 100 for share in shares.values())
    assert shares["network busy"] < shares["engine busy"]
    parts = (
        shares["waiting for frames, read ahead in a thread"]
        + shares["building messages, written behind in a thread"]
    )
    assert 90 < parts + shares["engine busy"] <= 100.1
    assert rows["network at every frame, speed"]["ratio"] > 0
    assert rows["network at every frame, ATE"]["median"] < 0.05
    assert rows["network at every frame, ATE"]["note"] == "bundled clip, 8 frames"


def test_without_the_clip_the_suite_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        bench._replay_rows(PlanePredictor(), tmp_path / "nowhere", tmp_path)


def test_the_long_bag_goes_back_and_forth(tmp_path: Path) -> None:
    bag = bench._write(tmp_path / "bag", bench.SMALL, small_pictures(4), 9, compressed=True)
    with BagReader(bag) as reader:
        frames = list(reader.frames())
    assert [there_and_back(index, 4) for index in range(9)] == [0, 1, 2, 3, 2, 1, 0, 1, 2]
    assert np.array_equal(frames[1].rgb, frames[5].rgb)
    assert not np.array_equal(frames[1].rgb, frames[2].rgb)
