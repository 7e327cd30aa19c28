"""`flow3r export lerobot`: what a run said stands beside every frame, the rest stays as it was."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from pyarrow import parquet

from flow3r_ros.datasets.lerobot import open_lerobot
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import InputError, OutputError
from flow3r_ros.offline.lerobot_export import export
from flow3r_ros.offline.lerobot_rows import LARGEST, NO_ESTIMATE
from flow3r_ros.offline.lerobot_runs import ExportOptions
from flow3r_ros.offline.run import run_to_folder
from flow3r_ros.training.scenes.renderer import SceneClip
from test.datasets.lerobot_factory import FPS, FRONT, change_info, video_of, write_lerobot
from test.odometry.oracle import Oracle
from test.offline.factory import clip_folder, small_clip, small_config

FRAMES = 6
POSE, TRACKING, DEPTH = (f"flow3r.front.{name}" for name in ("pose", "tracking", "depth"))


def options_of(clip: SceneClip, **changes: object) -> ExportOptions:
    options = ExportOptions(small_config(), lambda settings: Oracle(clip), quiet=True)
    return replace(options, **changes)  # type: ignore[arg-type]


def rows_of(root: Path) -> dict[str, list]:
    files = sorted((root / "data").rglob("*.parquet"))
    return {
        name: [value for file in files for value in parquet.read_table(file)[name].to_pylist()]
        for name in parquet.read_table(files[0]).column_names
    }


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A dataset of two episodes, its copy with estimates, and their runs."""
    folder, clip = tmp_path_factory.mktemp("lerobot"), small_clip(FRAMES)
    root = write_lerobot(folder / "data", [list(clip.rgb), list(clip.rgb)], camera=clip.camera)
    (root / "README.md").write_text("a card")
    report = export([root], folder / "copy", options_of(clip), folder / "runs")
    assert (report.episodes, report.frames, report.failed) == (2, 2 * FRAMES, {})
    assert report.frames_with_pose == 2 * FRAMES
    return root, folder / "copy", folder / "runs"


def test_a_copy_keeps_everything_and_adds_features(copied: tuple[Path, Path, Path]) -> None:
    root, copy, _ = copied
    before, after = rows_of(root), rows_of(copy)
    assert all(after[name] == before[name] for name in before)
    assert set(after) - set(before) == {POSE, TRACKING, DEPTH, "flow3r.front.segment"}
    for name in ("README.md", "meta/tasks.parquet", str(video_of(root).relative_to(root))):
        assert (copy / name).read_bytes() == (root / name).read_bytes()
    info = json.loads((copy / "meta/info.json").read_text())
    assert info["total_frames"] == 2 * FRAMES
    assert info["features"][POSE]["shape"] == [7]
    assert info["features"][DEPTH]["info"]["is_depth_map"] is True
    assert open_lerobot(copy).cameras == [FRONT]
    stats = json.loads((copy / "meta/stats.json").read_text())
    assert stats[POSE]["count"] == [2 * FRAMES]
    row = parquet.read_table(copy / "meta/episodes/chunk-000/file-000.parquet").to_pylist()[1]
    np.testing.assert_allclose(
        row[f"stats/{POSE}/max"], np.max(after[POSE][FRAMES:], axis=0), atol=1e-6
    )


def test_poses_are_those_of_the_run(copied: tuple[Path, Path, Path]) -> None:
    _, copy, runs = copied
    rows = rows_of(copy)
    assert rows[TRACKING] == [0, *[1] * (FRAMES - 1)] * 2
    tum = np.loadtxt(runs / "episode_000001" / "trajectory.tum")
    np.testing.assert_allclose(rows[POSE][FRAMES:], tum[:, 1:], atol=1e-6)
    assert rows[POSE][0] == [0, 0, 0, 0, 0, 0, 1]
    assert np.ptp(rows[POSE], axis=0)[:3].min() > 0.05, "the camera moves"


def test_an_episode_is_run_as_the_same_pictures_in_a_folder_are(tmp_path: Path) -> None:
    clip = small_clip(FRAMES)
    folder = clip_folder(tmp_path / "clip", clip)
    frames = [list(clip.rgb)] * 2
    root = write_lerobot(tmp_path / "data", frames, camera=clip.camera, front="image")
    ways = []
    for name, source, episode in (("one", folder, None), ("two", root, 1)):
        run_to_folder(
            source, tmp_path / name, small_config(), lambda _: Oracle(clip), quiet=True,
            episode=episode,
        )  # fmt: skip
        ways.append(np.loadtxt(tmp_path / name / "trajectory.tum")[:, 1:])
    np.testing.assert_array_equal(*ways)


def test_depth_is_that_of_the_run(copied: tuple[Path, Path, Path]) -> None:
    _, copy, runs = copied
    info = json.loads((copy / "meta/info.json").read_text())["features"][DEPTH]["info"]
    folder = runs / "episode_000000" / "depth"
    scale = json.loads((folder / "meta.json").read_text())["scale"]
    made = cv2.imread(str(folder / "000003.png"), cv2.IMREAD_UNCHANGED).astype(float) / scale
    data = np.frombuffer(rows_of(copy)[DEPTH][3]["bytes"], np.uint8)
    stored = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    assert stored.dtype == np.uint16
    assert (stored > 0).mean() > 0.9
    assert stored.max() <= LARGEST
    assert "depth_unit" not in info, "a relative scale is not millimetres"
    np.testing.assert_allclose(stored / info["values_per_unit_of_pose"], made, atol=1e-3)


def test_runs_that_lie_there_are_used_again_and_others_refused(
    copied: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    root, _, runs = copied

    def no_engine(settings: object) -> Oracle:
        raise AssertionError("nothing has to be run")

    options = replace(options_of(small_clip(FRAMES)), open_predictor=no_engine, depth=False)
    report = export([root], tmp_path / "again", options, runs)
    assert report.frames_with_pose == 2 * FRAMES
    assert DEPTH not in report.features
    other = write_lerobot(tmp_path / "other", [list(small_clip(FRAMES).rgb)])
    with pytest.raises(InputError, match=r"episode_000000: is a run of .*data, not of .*other"):
        export([other], tmp_path / "wrong", options, runs)
    assert not (tmp_path / "wrong").exists()


def test_an_episode_that_cannot_be_run_keeps_its_rows(tmp_path: Path) -> None:
    clip = small_clip(FRAMES)
    root = write_lerobot(tmp_path / "data", [list(clip.rgb), list(clip.rgb)])
    short = write_lerobot(tmp_path / "short", [list(clip.rgb)])
    video_of(root).write_bytes(video_of(short).read_bytes())
    report = export([root], tmp_path / "copy", options_of(clip))
    assert list(report.failed) == ["episode_000001"]
    rows = rows_of(tmp_path / "copy")
    assert rows[TRACKING][FRAMES:] == [NO_ESTIMATE] * FRAMES
    assert np.isnan(rows[POSE][FRAMES:]).all()
    assert np.isfinite(rows[POSE][:FRAMES]).all()
    video_of(root).unlink()
    with pytest.raises(InputError, match=r"no episode could be run; the first: .*file-000\.mp4"):
        export([root], tmp_path / "none", options_of(clip))
    assert not (tmp_path / "none").exists()


def test_recordings_and_runs_become_a_new_dataset(tmp_path: Path) -> None:
    clip = small_clip(FRAMES)
    recording = clip_folder(tmp_path / "clip", clip)
    run_to_folder(recording, tmp_path / "run", small_config(), lambda _: Oracle(clip), quiet=True)
    report = export([recording, tmp_path / "run"], tmp_path / "made", options_of(clip, task="see"))
    assert (report.episodes, report.frames, report.notes) == (2, 2 * FRAMES, [])
    made = open_lerobot(tmp_path / "made")
    assert made.fps == FPS
    assert made.intrinsics("observation.images.camera") == clip.camera
    with open_source(tmp_path / "made", episode=1) as source:
        frames = list(source)
    assert len(frames) == FRAMES
    assert np.abs(frames[-1].rgb.astype(int) - clip.rgb[-1]).mean() < 6
    rows = rows_of(tmp_path / "made")
    assert rows["flow3r.camera.stamp"][:2] == [100_000_000_000, 100_100_000_000]
    assert rows["index"] == list(range(2 * FRAMES))
    assert rows["flow3r.camera.pose"][:FRAMES] == rows["flow3r.camera.pose"][FRAMES:]
    tasks = parquet.read_table(tmp_path / "made/meta/tasks.parquet").to_pylist()
    assert tasks == [{"task_index": 0, "__index_level_0__": "see"}]


def test_what_does_not_fit_together_is_refused(tmp_path: Path) -> None:
    clip = small_clip(2)
    root = write_lerobot(tmp_path / "data", [list(clip.rgb)])
    recording = clip_folder(tmp_path / "clip", clip)
    with pytest.raises(InputError, match="data: is a LeRobot dataset; give it alone"):
        export([recording, root], tmp_path / "out", options_of(clip))
    with pytest.raises(OutputError, match="lies inside the dataset"):
        export([root], root / "out", options_of(clip))
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match="taken exists already"):
        export([root], tmp_path / "taken", options_of(clip))
    change_info(root, codebase_version="v2.1")
    with pytest.raises(InputError, match=r"version v2\.1"):
        export([root], tmp_path / "out", options_of(clip))


def test_a_source_that_is_gone_and_a_second_copy_are_said(
    copied: tuple[Path, Path, Path], tmp_path: Path
) -> None:
    _, copy, _ = copied
    digest = hashlib.sha256((copy / "meta/info.json").read_bytes()).hexdigest()
    with pytest.raises(InputError, match=r"has flow3r\.front\.\w+ already"):
        export([copy], tmp_path / "twice", options_of(small_clip(FRAMES)))
    assert hashlib.sha256((copy / "meta/info.json").read_bytes()).hexdigest() == digest
    clip = small_clip(3)
    recording = clip_folder(tmp_path / "clip", clip)
    run_to_folder(recording, tmp_path / "run", small_config(), lambda _: Oracle(clip), quiet=True)
    recording.rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"its pictures are in .*clip, which is not there"):
        export([tmp_path / "run"], tmp_path / "out", options_of(clip))
