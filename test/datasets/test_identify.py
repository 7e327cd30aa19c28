"""What lies at a path is said by its content; every refusal names it and the cure for that."""

from __future__ import annotations

import io
import os
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.datasets.identify import bag_at, identify
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import BagError, InputError
from test.bags.factory import picture, standard_topics, write_bag, write_ros1_bag
from test.offline.factory import write_pictures, write_video


def test_a_bag_whatever_it_is_called(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(3))
    misnamed = shutil.copy(bag / "bag.mcap", tmp_path / "recording.mp4")
    active = write_ros1_bag(tmp_path / "drive.bag.active", 3)
    (tmp_path / "alone").mkdir()
    shutil.copy(active, tmp_path / "alone" / "old.bag")
    for path in (bag, bag / "metadata.yaml", bag / "bag.mcap", Path(misnamed), active):
        assert identify(path).kind == "bag"
        with open_source(path) as source:
            assert len(list(source)) == 3
    with open_source(tmp_path / "alone") as source:
        assert len(list(source)) == 3


def test_a_video_whatever_it_is_called(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    video = write_video(tmp_path / "clip" / "a.mp4", 4)
    for name in ("a.bag", "noname", "2024-05-01T10:22:33.mp4"):
        copy = Path(shutil.copy(video, tmp_path / name))
        assert identify(copy).kind == "video"
    monkeypatch.chdir(tmp_path)
    with open_source(Path("2024-05-01T10:22:33.mp4")) as source:
        assert len(list(source)) == 4


def archive(path: Path) -> None:
    with tarfile.open(path, "w:gz") as packed:
        packed.addfile(tarfile.TarInfo("a.png"), io.BytesIO())


REFUSALS = {
    "empty.bag": (b"", "is empty"),
    "notes.txt": (b"it rained\n", "is a text file"),
    "metadata.yaml": (b"a: 1\n", "is a text file"),
    "old.bag": (b"#ROSRECORD V1.1\n", "rosbag fix"),
    "clip.zip": (b"PK\x03\x04" + bytes(40), "unpack it"),
    "array.npy": (b"\x93NUMPY\x01\x00" + bytes(40), "numpy array"),
    "one.png": (cv2.imencode(".png", picture(0))[1].tobytes(), "one image is not a sequence"),
    "data.h5": (b"\x89HDF\r\n" + bytes(40), "HDF5"),
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_refusal_says_what_it_is(tmp_path: Path, name: str) -> None:
    content, words = REFUSALS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        identify(tmp_path / name)
    assert name in str(caught.value)
    assert "not a video that" not in str(caught.value)


def test_packed_archives_pipes_and_missing_paths(tmp_path: Path) -> None:
    archive(tmp_path / "a.tar.gz")
    os.mkfifo(tmp_path / "pipe")
    for name, words in {"a.tar.gz": "archive", "pipe": "pipe", "none": "no such"}.items():
        with pytest.raises(InputError, match=words):
            identify(tmp_path / name)


def test_replay_refuses_what_is_no_bag_and_says_what_to_use(tmp_path: Path) -> None:
    video = write_video(tmp_path / "a.mp4", 3)
    with pytest.raises(BagError, match="is a video, not a bag; use `flow3r run`"):
        bag_at(video)
    write_pictures(tmp_path / "frames", [picture(0), picture(1)])
    with pytest.raises(BagError, match="a folder of pictures, not a bag"):
        bag_at(tmp_path / "frames")


def test_a_folder_above_names_what_can_be_given(tmp_path: Path) -> None:
    for name in ("MH_01/mav0/cam0/data", "MH_02/mav0/cam0/data"):
        write_pictures(tmp_path / name, [picture(0), picture(1)])
    with pytest.raises(InputError, match=r"below it: MH_01, MH_02; give one of them"):
        identify(tmp_path)
    (tmp_path / "nothing" / "deeper").mkdir(parents=True)
    with pytest.raises(InputError, match="no files"):
        identify(tmp_path / "nothing")


LAYOUTS = {
    "euroc/mav0/cam0/data": ("euroc", "{ns}.png"),
    "tum/rgb": ("tum", "{s}.png"),
    "orb/images": ("orb", "{ns}.png"),
    "flat": ("flat", "frame{s}.png"),
    "ros": ("ros", "{sec}_{nanosec}.png"),
}


@pytest.mark.parametrize("place", LAYOUTS)
def test_names_that_are_stamps(tmp_path: Path, place: str) -> None:
    root, name = LAYOUTS[place]
    stamps = [1403636579_000000000 + step for step in (0, 75_000_000, 300_000_000, 225_000_000)]
    (tmp_path / place).mkdir(parents=True)
    for index, ns in enumerate(stamps):
        seconds = f"{ns // 10**9}.{ns % 10**9:09d}".rstrip("0")
        seconds += "0" if seconds.endswith(".") else ""
        parts = {"sec": ns // 10**9, "nanosec": f"{ns % 10**9:09d}"}
        cv2.imwrite(str(tmp_path / place / name.format(ns=ns, s=seconds, **parts)), picture(index))
    with open_source(tmp_path / root) as source:
        frames = list(source)
    assert [frame.stamp_ns for frame in frames] == sorted(stamps)
    np.testing.assert_array_equal(frames[3].rgb[..., ::-1], picture(2))


def test_kitti_raw_dates_and_calibration(tmp_path: Path) -> None:
    day = tmp_path / "2011_09_26"
    data = day / "drive_sync" / "image_02" / "data"
    write_pictures(data, [picture(0), picture(1)])
    lines = "2011-09-26 13:02:25.964389445\n2011-09-26 13:02:26.064389445\n"
    (data.parent / "timestamps.txt").write_text(lines)
    (day / "calib_cam_to_cam.txt").write_text(
        "S_rect_02: 64 48\nP_rect_02: 60 0 31 4 0 61 24 0 0 0 1 0\n"
    )
    for path in (day / "drive_sync", data.parent, data):
        with open_source(path) as source:
            frames = list(source)
        assert [frame.stamp_ns for frame in frames] == [1317042145964389445, 1317042146064389445]
        assert frames[0].camera is not None
        assert (frames[0].camera.fx, frames[0].camera.cy) == (60.0, 24.0)


def test_euroc_is_read_with_its_calibration(tmp_path: Path) -> None:
    cam = tmp_path / "MH_01" / "mav0" / "cam0"
    stamps = [1403636579763555584, 1403636579863555584]
    (cam / "data").mkdir(parents=True)
    for index, ns in enumerate(stamps):
        cv2.imwrite(str(cam / "data" / f"{ns}.png"), picture(index))
    (cam / "data.csv").write_text("#t,f\n" + "".join(f"{ns},{ns}.png\n" for ns in stamps))
    (cam / "sensor.yaml").write_text(
        f"T_BS: {{data: {np.eye(4).reshape(-1).tolist()}}}\nresolution: [64, 48]\n"
        "intrinsics: [60.0, 61.0, 31.0, 24.0]\ndistortion_model: radial-tangential\n"
        "distortion_coefficients: [-0.1, 0.01, 0.0, 0.0]\n"
    )
    for path in (tmp_path / "MH_01", tmp_path / "MH_01" / "mav0"):
        with open_source(path) as source:
            frames = list(source)
        assert [frame.stamp_ns for frame in frames] == stamps
        assert frames[0].camera is not None
        assert (frames[0].camera.fx, frames[0].camera.distortion_model) == (60.0, "plumb_bob")
