"""LeRobot datasets as a source: the right frames of the right episode, and one line with its cure
for everything that is not one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from flow3r_ros.datasets.identify import bag_at, identify
from flow3r_ros.datasets.lerobot import Choice, open_lerobot
from flow3r_ros.datasets.lerobot_pictures import BETWEEN_NS
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import BagError, CameraError, InputError
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.types import Camera
from test.datasets.lerobot_factory import (
    FRONT,
    SIDE,
    change_info,
    pictures,
    video_of,
    write_lerobot,
)

CAMERA = Camera(64, 48, 60.0, 61.0, 31.0, 24.0)


def two_episodes(root: Path, **options: object) -> Path:
    return write_lerobot(root, [pictures(5), pictures(7, first=5)], **options)  # type: ignore[arg-type]


def seen(root: Path, key: str | None = None, choice: Choice = None, every: int = 1) -> list[float]:
    """Number of every frame, read off its grey."""
    with open_source(root, topic=key, episode=choice, every=every) as source:
        return [round(float(frame.rgb.mean()) / 10, 1) for frame in source]


def test_an_episode_is_a_stretch_of_a_video_that_many_share(tmp_path: Path) -> None:
    root = two_episodes(tmp_path / "data")
    assert identify(root).kind == "lerobot"
    assert np.allclose(seen(root, choice=1), [5, 6, 7, 8, 9, 10, 11], atol=0.2)
    assert np.allclose(seen(root, choice=0), [0, 1, 2, 3, 4], atol=0.2)
    with open_source(root, episode=1) as source:
        assert source.total == 7
        frames = list(source)
    assert [frame.stamp_ns for frame in frames] == [k * 100_000_000 for k in range(7)]
    assert [frame.id for frame in frames] == list(range(7))


def test_all_episodes_one_after_another_with_time_between(tmp_path: Path) -> None:
    root = two_episodes(tmp_path / "data")
    with open_source(root, episode="all", every=2) as source:
        assert source.total == 6
        stamps = [frame.stamp_ns for frame in source]
    assert stamps[:3] == [0, 200_000_000, 400_000_000]
    assert stamps[3] == 400_000_000 + BETWEEN_NS + 100_000_000
    assert np.allclose(seen(root, choice="all"), range(12), atol=0.2)


def test_cameras_are_chosen_by_name_or_its_last_part(tmp_path: Path) -> None:
    root = two_episodes(tmp_path / "data", side=True)
    assert open_lerobot(root).cameras == [FRONT, SIDE]
    assert seen(root, SIDE, 1) == [5, 6, 7, 8, 9, 10, 11]
    assert seen(root, "side", 0) == [0, 1, 2, 3, 4]
    with pytest.raises(InputError, match=r"several cameras .*front.*side.*--topic"):
        seen(root, choice=0)
    with pytest.raises(InputError, match=r"no camera is called rear.*front"):
        seen(root, "rear", 0)


def test_depth_is_no_camera(tmp_path: Path) -> None:
    root = two_episodes(tmp_path / "data", side=True)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[SIDE]["info"] = {"is_depth_map": True}
    change_info(root, features=features)
    assert open_lerobot(root).cameras == [FRONT]
    assert len(seen(root, choice=0)) == 5


def test_several_episodes_want_a_choice(tmp_path: Path) -> None:
    root = two_episodes(tmp_path / "data")
    with pytest.raises(InputError, match="holds 2 episodes; choose one with --episode 0 to 1"):
        seen(root)
    with pytest.raises(InputError, match="has no episode 2; --episode takes 0 to 1"):
        seen(root, choice=2)
    alone = write_lerobot(tmp_path / "alone", [pictures(3)])
    assert len(seen(alone)) == 3
    with pytest.raises(InputError, match="is a video; --episode is for LeRobot"):
        open_source(video_of(root), episode=1)
    with pytest.raises(BagError, match="is a LeRobot dataset, not a bag"):
        bag_at(root)


def test_intrinsics_come_from_the_dataset_or_a_file_or_are_said_to_be_unknown(
    tmp_path: Path,
) -> None:
    given = write_lerobot(tmp_path / "given", [pictures(2)], camera=CAMERA)
    with open_source(given) as source:
        assert next(iter(source)).camera == CAMERA
        assert source.camera.source == "file"
    plain = write_lerobot(tmp_path / "plain", [pictures(2)])
    with open_source(plain) as source:
        assert next(iter(source)).camera is None
        assert "no camera.json" in source.camera.why
    save_camera(CAMERA, plain / "camera.json")
    with open_source(plain) as source:
        assert next(iter(source)).camera == CAMERA


def test_intrinsics_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "data", [pictures(2)], camera=CAMERA)
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features[FRONT]["info"]["camera"]["fx"] = -3
    change_info(root, features=features)
    with pytest.raises(CameraError, match=r"info\.json.*front.*give --camera"), open_source(root):
        pass


def cut_video(root: Path) -> None:
    video_of(root).write_bytes(video_of(root).read_bytes()[:600])


def without_column(root: Path, column: str) -> None:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    parquet.write_table(parquet.read_table(path).drop_columns([column]), path)


def set_begin(root: Path, seconds: float) -> None:
    path = root / "meta/episodes/chunk-000/file-000.parquet"
    table, name = parquet.read_table(path), f"videos/{FRONT}/from_timestamp"
    column = pa.array([0.0, seconds])
    parquet.write_table(table.set_column(table.column_names.index(name), name, column), path)


BROKEN: dict[str, tuple[Callable[[Path], object], str]] = {
    "version 2.1": (
        lambda root: change_info(root, codebase_version="v2.1"),
        r"LeRobot dataset of version v2\.1.*; convert it with python -m lerobot.*v21_to_v30",
    ),
    "no json": (lambda root: (root / "meta/info.json").write_text("{"), r"info\.json.*JSON"),
    "no fps": (lambda root: change_info(root, fps=None), r"info\.json: is not the info"),
    "endless fps": (lambda root: change_info(root, fps=1e9), r"info\.json: .*fps"),
    "features": (lambda root: change_info(root, features=[1]), r"info\.json: is not the info"),
    "outside": (
        lambda root: change_info(root, video_path="../../{video_key}.mp4"),
        "a path leaves the dataset",
    ),
    "a key that is a path": (
        lambda root: change_info(root, features={"../a": {"dtype": "video", "shape": [1]}}),
        "a path leaves the dataset",
    ),
    "begin is between": (
        lambda root: change_info(root, fps=30),
        r"holds no frame at 0\.500 s, where episode 1 begins",
    ),
    "no episodes": (
        lambda root: (root / "meta/episodes/chunk-000/file-000.parquet").unlink(),
        "the list of episodes is missing; download the dataset again",
    ),
    "episodes damaged": (
        lambda root: (root / "meta/episodes/chunk-000/file-000.parquet").write_bytes(b"PAR1"),
        r"file-000\.parquet: the list of episodes is damaged",
    ),
    "column": (lambda root: without_column(root, "length"), "lacks length|is damaged .*length"),
    "no video": (lambda root: video_of(root).unlink(), r"file-000\.mp4: a video cannot be read"),
    "lfs": (
        lambda root: video_of(root).write_text("version https://git-lfs.github.com/spec/v1\n"),
        r"file-000\.mp4: a video is a pointer of git-lfs; run git lfs pull",
    ),
    "video cut": (cut_video, r"file-000\.mp4: is not a video that can be opened"),
    "begin": (lambda root: set_begin(root, 99.0), r"holds no frame at 99\.000 s, where episode 1"),
    "begin is no number": (lambda root: set_begin(root, -1.0), "an episode makes no sense"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_said_in_one_line(tmp_path: Path, name: str) -> None:
    root = two_episodes(tmp_path / "data")
    spoil, message = BROKEN[name]
    spoil(root)
    with pytest.raises(InputError, match=message) as caught:
        seen(root, choice=1)
    assert "\n" not in str(caught.value)
    assert str(root) in str(caught.value)


def test_an_episode_that_its_video_is_too_short_for_loses_frames_that_are_counted(
    tmp_path: Path,
) -> None:
    root = two_episodes(tmp_path / "data")
    other = write_lerobot(tmp_path / "short", [pictures(5), pictures(4, first=5)])
    video_of(root).write_bytes(video_of(other).read_bytes())
    with open_source(root, episode=1) as source:
        assert len(list(source)) == 4
        assert source.drops == {"corrupt_image": 3}
        assert "ends 3 frames early" in source.notes[-1]


def test_a_damaged_picture_in_a_table_is_dropped_and_counted(tmp_path: Path) -> None:
    root = write_lerobot(tmp_path / "data", [pictures(4)], front="image")
    path = root / "data/chunk-000/file-000.parquet"
    table = parquet.read_table(path)
    cells = table[FRONT].to_pylist()
    cells[1]["bytes"], cells[2]["bytes"] = b"no picture", None
    index = table.column_names.index(FRONT)
    parquet.write_table(table.set_column(index, FRONT, pa.array(cells)), path)
    with open_source(root) as source:
        frames = list(source)
        assert [frame.stamp_ns for frame in frames] == [0, 300_000_000]
        assert source.drops == {"corrupt_image": 2}
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"file-000\.parquet: a data file is damaged"):
        seen(root)
