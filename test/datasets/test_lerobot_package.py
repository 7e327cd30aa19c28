"""The real `lerobot` reads what we write, and we read what it records (`make test-thorough`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from pyarrow import parquet

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.offline.lerobot_export import export
from flow3r_ros.offline.lerobot_runs import ExportOptions
from test.odometry.oracle import Oracle
from test.offline.factory import clip_folder, small_clip, small_config
from test.own_environment import run_there

pytestmark = pytest.mark.thorough
READER = "test.datasets.lerobot_reader"
FRAMES = 6


def read_by_lerobot(root: Path, home: Path) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    output = home / f"{root.name}.npz"
    run_there(READER, "read", root, output, home=home)
    data = dict(np.load(output))
    return json.loads(str(data.pop("about"))), data


def options() -> ExportOptions:
    clip = small_clip(FRAMES)
    return ExportOptions(small_config(), lambda _: Oracle(clip), topic="front", quiet=True)


def difference(read: np.ndarray, rgb: np.ndarray) -> float:
    """Mean difference in grey levels of pictures `[N, 3, H, W]` in [0, 1] and `[N, H, W, 3]`."""
    return float(np.abs(read.transpose(0, 2, 3, 1) * 255 - rgb.astype(np.float64)).mean())


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two episodes recorded by lerobot: the same clip forward and backward."""
    folder = tmp_path_factory.mktemp("recorded")
    rgb = small_clip(FRAMES).rgb
    np.savez(folder / "frames.npz", rgb=np.stack([rgb, rgb[::-1]]))
    run_there(READER, "record", folder / "frames.npz", folder / "data", home=folder)
    return folder / "data"


def test_we_read_what_lerobot_records(recorded: Path) -> None:
    rgb = small_clip(FRAMES).rgb
    for key, worst in (("front", 8.0), ("side", 0.0)):
        for episode, expected in enumerate((rgb, rgb[::-1])):
            with open_source(recorded, topic=key, episode=episode) as source:
                frames = [frame.rgb for frame in source]
            apart = np.abs(np.stack(frames).astype(float) - expected).mean((1, 2, 3))
            assert apart.max() <= worst, f"{key}, episode {episode}: {apart}"


def test_lerobot_reads_our_copy_of_its_own_dataset(recorded: Path, tmp_path: Path) -> None:
    report = export([recorded], tmp_path / "copy", options(), tmp_path / "runs")
    assert report.failed == {}
    before, old = read_by_lerobot(recorded, tmp_path)
    about, data = read_by_lerobot(tmp_path / "copy", tmp_path)
    assert (about["fps"], about["episodes"], about["tasks"]) == (10, 2, before["tasks"])
    for key in old:
        np.testing.assert_array_equal(data[key], old[key], err_msg=key)
    added = {f"flow3r.front.{name}" for name in ("pose", "tracking", "segment", "depth")}
    assert set(data) - set(old) == added <= set(about["stats"])
    poses = np.full((2 * FRAMES, 7), np.nan)
    for episode in (0, 1):
        for line in np.loadtxt(tmp_path / f"runs/episode_{episode:06d}/trajectory.tum"):
            poses[episode * FRAMES + round(line[0] * 10)] = line[1:]
    assert np.isfinite(poses).all(1).sum() > FRAMES
    np.testing.assert_allclose(data["flow3r.front.pose"], poses, atol=1e-6)
    table = parquet.read_table(tmp_path / "copy/data/chunk-000/file-000.parquet")
    for row, cell in enumerate(table["flow3r.front.depth"].to_pylist()):
        png = cv2.imdecode(np.frombuffer(cell["bytes"], np.uint8), cv2.IMREAD_UNCHANGED)
        np.testing.assert_array_equal(data["flow3r.front.depth"][row, 0], png)
        assert row >= FRAMES or (png > 0).mean() > 0.9


def test_lerobot_reads_a_new_dataset_of_recordings(tmp_path: Path) -> None:
    clip = small_clip(FRAMES)
    recordings = [clip_folder(tmp_path / name, clip) for name in ("one", "two")]
    made = ExportOptions(small_config(), lambda _: Oracle(clip), quiet=True, task="look")
    report = export(recordings, tmp_path / "made", made)
    about, data = read_by_lerobot(tmp_path / "made", tmp_path)
    assert (about["fps"], about["episodes"]) == (10, 2)
    assert about["tasks"] == ["look"] * 2 * FRAMES
    assert difference(data["observation.images.camera"], np.concatenate([clip.rgb] * 2)) < 6
    assert np.isfinite(data["flow3r.camera.pose"]).all()
    assert report.frames_with_pose == 2 * FRAMES
    assert data["frame_index"].tolist() == [*range(FRAMES)] * 2
    assert set(report.features) <= set(about["stats"])
