"""Videos, folders, clips and bags give the same kind of frames; bad ones are counted or a typed
error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.datasets.prefetch import Prefetch
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import CameraError, InputError
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.types import Camera
from test.bags.factory import picture, standard_topics, write_bag
from test.conftest import shared_path
from test.offline.factory import write_pictures, write_video

CAMERA = Camera(64, 48, 60.0, 61.0, 31.0, 24.0)


def test_video_with_the_containers_stamps(tmp_path: Path) -> None:
    with open_source(write_video(tmp_path / "a.mp4", 12)) as source:
        assert source.total == 12
        frames = list(source)
    assert [frame.id for frame in frames] == list(range(12))
    assert [round(frame.stamp_ns / 1e6) for frame in frames] == [100 * index for index in range(12)]
    assert np.abs(frames[5].rgb.astype(int) - picture(5)).mean() < 12
    assert frames[0].camera is None


def test_every_and_max_frames(tmp_path: Path) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    with open_source(path, every=5) as source:
        assert source.total == 3
        assert [round(frame.stamp_ns / 1e6) for frame in source] == [0, 500, 1000]
    with open_source(path, every=2, max_frames=4) as source:
        assert source.total == 4
        assert [frame.id for frame in source] == [0, 1, 2, 3]


def test_clip_folder_uses_stamps_and_camera_beside(tmp_path: Path) -> None:
    video = write_video(tmp_path / "clip" / "frames.mp4", 4)
    stamps = ["1403715273.262143", "1403715273.3", "1403715273.4", "1403715273.5"]
    (video.parent / "timestamps.txt").write_text("# seconds\n" + "\n".join(stamps) + "\n")
    save_camera(CAMERA, video.parent / "camera.json")
    for path in (video, video.parent):
        with open_source(path) as source:
            frames = list(source)
        assert frames[0].stamp_ns == 1403715273262143000
        assert frames[3].stamp_ns == 1403715273500000000
        assert frames[3].camera == CAMERA


def test_pictures_in_natural_order(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "clip" / "frames", [picture(index) for index in range(12)])
    (tmp_path / "clip" / "timestamps.txt").write_text(
        "".join(f"{index}.25\n" for index in range(12))
    )
    with open_source(tmp_path / "clip") as source:
        frames = list(source)
    np.testing.assert_array_equal(frames[10].rgb, picture(10))
    assert frames[10].stamp_ns == 10_250_000_000
    (tmp_path / "clip" / "timestamps.txt").unlink()
    with open_source(folder) as source:
        assert [frame.stamp_ns for frame in source][:2] == [0, 33_333_333]
        assert "30 frames a second" in source.notes[0]


def test_bag(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(5))
    with open_source(bag, every=2) as source:
        assert source.total == 3
        assert len(list(source)) == 3
    other = tmp_path / "camera.json"
    save_camera(Camera(64, 48, 99.0, 99.0, 32.0, 24.0), other)
    with open_source(bag / "bag.mcap", camera=other) as source:
        assert {frame.camera.fx for frame in source if frame.camera} == {99.0}


@pytest.mark.parametrize("damage", ["empty", "text", "cut"])
def test_unreadable_video(tmp_path: Path, damage: str) -> None:
    path = write_video(tmp_path / "a.mp4", 12)
    whole = path.read_bytes()
    path.write_bytes(
        {"empty": b"", "text": b"this is not a video", "cut": whole[: len(whole) // 2]}[damage]
    )
    with pytest.raises(InputError, match=r"a\.mp4"), open_source(path) as source:
        list(source)


def test_damaged_frames_in_the_middle_are_counted(tmp_path: Path) -> None:
    whole = shared_path("video/cotracker_bear/frames.mp4").read_bytes()
    middle = len(whole) // 2
    damaged = whole[:middle] + np.random.default_rng(0).bytes(30_000) + whole[middle + 30_000 :]
    (tmp_path / "a.mp4").write_bytes(damaged)
    with open_source(tmp_path / "a.mp4") as source:
        frames = list(source)
        assert source.total is not None
        assert 0 < source.drops["corrupt_image"] < 40
        assert len(frames) + source.drops["corrupt_image"] == source.total
        assert any("can be read" in note for note in source.notes)


def test_unreadable_pictures_are_counted(tmp_path: Path) -> None:
    folder = write_pictures(
        tmp_path / "frames", [picture(index) for index in range(5)], ["0", "1", "2", "3", "4"]
    )
    (folder / "frame_1.png").write_bytes(b"")
    (folder / "frame_3.png").write_bytes(b"\x89PNG but no more")
    with open_source(folder) as source:
        assert [frame.stamp_ns // 10**9 for frame in source] == [0, 2, 4]
        assert source.drops == {"corrupt_image": 2}


def test_stamps_that_do_not_fit(tmp_path: Path) -> None:
    folder = write_pictures(tmp_path / "frames", [picture(0), picture(1)], ["0", "1", "2"])
    with pytest.raises(InputError, match="3 stamps for 2 images"), open_source(folder):
        pass
    (folder / "timestamps.txt").write_text("0\nsoon\n")
    with pytest.raises(InputError, match=r"timestamps\.txt:2"), open_source(folder):
        pass
    video = write_video(tmp_path / "clip" / "frames.mp4", 4)
    (video.parent / "timestamps.txt").write_text("0\n0.1\n")
    with open_source(video) as source:
        assert len(list(source)) == 2
        assert source.drops == {"no_timestamp": 2}


@pytest.mark.parametrize(
    "text",
    [
        '{"width": 640, "height": 480, "fx": 1',
        '{"width": 32, "height": 48, "fx": 50, "fy": 50, "cx": 16, "cy": 24}',
    ],
)
def test_camera_file_that_does_not_fit(tmp_path: Path, text: str) -> None:
    folder = write_pictures(tmp_path / "frames", [picture(0)], ["0"])
    (tmp_path / "camera.json").write_text(text)
    with pytest.raises(CameraError, match=r"camera\.json"), open_source(folder) as source:
        list(source)


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-5"])
def test_camera_file_of_nonsense(tmp_path: Path, value: str) -> None:
    folder = write_pictures(tmp_path / "frames", [picture(0)], ["0"])
    (tmp_path / "c.json").write_text(
        f'{{"width": 64, "height": 48, "fx": {value}, "fy": 50, "cx": 16, "cy": 24}}'
    )
    with pytest.raises(CameraError), open_source(folder, camera=tmp_path / "c.json") as source:
        list(source)


def test_nothing_to_read(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    write_pictures(tmp_path / "one", [picture(0)])
    for path in (tmp_path / "missing", tmp_path / "empty", tmp_path / "one" / "frame_0.png"):
        with pytest.raises(InputError), open_source(path):
            pass


def test_prefetch_forwards_errors_in_their_place_and_stops_its_thread() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise InputError("torn")

    found: list[int] = []
    with Prefetch(items()) as ahead, pytest.raises(InputError, match="torn"):
        found.extend(ahead)
    assert found == [0, 1, 2]
    before = threading.active_count()
    with Prefetch(iter(range(10**9))) as endless:
        assert next(iter(endless)) == 0
    assert threading.active_count() == before
