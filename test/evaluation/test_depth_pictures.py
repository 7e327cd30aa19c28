"""Two runs of a clip side by side: unknown depth is grey, units do not matter, clouds are seen from
where the camera was."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.depth_pictures import CLOUD, WIDTH, draw_cloud, write_pictures
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.ply import write_ply
from flow3r_ros.wire.tum import write_tum
from test.evaluation.clip_samples import write_clip

FRAMES = 6


def write_run(folder: Path, unit: float) -> Path:
    (folder / "depth").mkdir(parents=True)
    (folder / "depth" / "meta.json").write_text(json.dumps({"scale": 1000.0}))
    ramp = np.tile(np.linspace(1.0, 4.0, 160), (120, 1)) * unit
    ramp[:, :40] = 0
    for index in range(FRAMES):
        name = folder / "depth" / f"{index:06d}.png"
        cv2.imwrite(str(name), np.rint(1000 * ramp).astype(np.uint16))
    points = np.random.default_rng(0).uniform(-1, 1, (500, 3)) + np.array([0.0, 0.0, 3.0])
    colours = np.full((500, 3), (200, 30, 30), np.uint8)
    write_ply(folder / "cloud.ply", points.astype(np.float32), colours, np.ones(500, np.float32))
    stamps = np.arange(FRAMES) * 100_000_000
    write_tum(folder / "trajectory.tum", Trajectory(stamps, np.tile(np.eye(4), (FRAMES, 1, 1))))
    return folder


def test_runs_in_two_units_look_alike(tmp_path: Path) -> None:
    clip = tmp_path / "walk"
    write_clip(clip, frames=FRAMES)
    runs = write_run(tmp_path / "a", 1.0), write_run(tmp_path / "b", 2.5)
    strip, cloud = write_pictures(clip, runs, tmp_path / "images")
    picture = cv2.imread(str(strip)).astype(int)
    assert picture.shape[1] == 3 * WIDTH
    before, after = picture[:, WIDTH : 2 * WIDTH], picture[:, 2 * WIDTH :]
    assert np.abs(before - after).mean() < 3.0
    assert np.abs(before[:, :60] - 128).mean() < 6.0, "unknown is grey"
    assert np.abs(before[:, 100] - before[:, 290]).mean() > 40, "near and far differ"
    assert cv2.imread(str(cloud)).shape[:2] == (CLOUD[1], 2 * CLOUD[0])


def test_a_cloud_is_drawn_where_the_pose_looks() -> None:
    points = np.array([[0.0, 0.0, 5.0], [0.0, 0.0, -5.0]])
    colours = np.array([[255, 0, 0], [0, 0, 255]], np.uint8)
    picture = draw_cloud(points, colours, np.eye(4))
    assert (picture == [255, 0, 0]).all(axis=2).any()
    assert not (picture == [0, 0, 255]).all(axis=2).any(), "behind the camera"


def test_runs_without_a_common_frame_are_refused(tmp_path: Path) -> None:
    runs = write_run(tmp_path / "a", 1.0), tmp_path / "b"
    (runs[1] / "depth").mkdir(parents=True)
    with pytest.raises(EvaluationError, match="no common depth map"):
        write_pictures(tmp_path / "walk", runs, tmp_path / "images")
