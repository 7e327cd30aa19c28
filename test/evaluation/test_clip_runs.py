"""Clips are measured once per version of the code; failures are said and not kept; true depth is compared in the run's own view."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation import scoreboard
from flow3r_ros.evaluation.clip_runs import Clip, find_clips, measure, measure_depth, run_clip
from flow3r_ros.evaluation.scoreboard import main
from flow3r_ros.evaluation.trajectory import Trajectory
from flow3r_ros.evaluation.tum import write_tum
from flow3r_ros.geometry.camera import save_camera
from flow3r_ros.training.scenes import render_clip
from test.evaluation.factories import random_poses, trajectory


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one synthetic clip in the layout of ../shared/video."""
    root = tmp_path_factory.mktemp("clips")
    clip = render_clip(
        5, frames=16, width=320, height=240, layout="room", motion="orbit", movers=0, speed=0.06, turn=0.06, field_of_view=70.0
    )
    folder = root / "room"
    (folder / "frames").mkdir(parents=True)
    for index, image in enumerate(clip.rgb):
        cv2.imwrite(str(folder / "frames" / f"{index:06d}.jpg"), image[..., ::-1])
    stamps = np.arange(16) * 100_000_000
    (folder / "timestamps.txt").write_text("".join(f"{stamp / 1e9:.6f}\n" for stamp in stamps))
    save_camera(clip.camera, folder / "camera.json")
    write_tum(folder / "groundtruth.tum", Trajectory(stamps, clip.poses))
    return root


def test_the_classical_result_is_kept(clips: Path, tmp_path: Path) -> None:
    clip = find_clips(clips)[0]
    first = run_clip(clip, "classical", tmp_path, "none")
    assert first["frames"] == 16
    assert first["errors"]["matched"] == 16
    kept = next(tmp_path.rglob("result.json"))
    kept.write_text(json.dumps({**first, "fps": -1.0}))
    assert run_clip(clip, "classical", tmp_path, "none")["fps"] == -1.0


def test_the_page_lists_every_clip_and_says_what_failed(clips: Path, tmp_path: Path) -> None:
    output = tmp_path / "docs" / "results.md"
    main(["--clips", str(clips), "--model", "no_such_model", "--output", str(output), "--cache", str(tmp_path / "cache")])
    page = output.read_text()
    assert page.count("room") >= 4
    assert "no such model" in page
    assert "| ATE | failed | failed | " in page
    assert (tmp_path / "docs" / "images" / "room.svg").read_text().startswith("<svg")
    assert not [path for path in (tmp_path / "cache").rglob("result.json") if "ours" in str(path)]


def test_whatever_fails_is_a_row_of_the_page(clips: Path, tmp_path: Path) -> None:
    root = tmp_path / "clips"
    shutil.copytree(clips / "room", root / "good")
    shutil.copytree(clips / "room", root / "torn")
    (root / "torn" / "groundtruth.tum").write_text("0 0 0\n")
    shutil.rmtree(root / "torn" / "frames")
    shutil.copytree(clips / "room", root / "unread")
    (root / "unread" / "camera.json").write_text("{")
    arguments = ["--clips", str(root), "--model", "no_such_model", "--cache", str(tmp_path / "cache")]
    main([*arguments, "--output", str(tmp_path / "results.md"), "--benchmark", "sintel=/nowhere"])
    page = (tmp_path / "results.md").read_text()
    assert "torn/groundtruth.tum:1: 3 fields" in page
    assert "| torn | failed: " in page
    assert "| unread | failed: " in page
    assert "| good (16 frames" in page
    assert "`flow3r evaluate benchmark sintel --data /nowhere`" in page
    assert "failed: flow3r: " in page


def test_an_error_nobody_foresaw_is_a_result(clips: Path, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    cache.write_text("a file where the folder should be")
    assert "cache" in run_clip(find_clips(clips)[0], "classical", cache, "none")["error"]


def test_speed_is_that_of_the_runs_made_alone(clips: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, int | None, bool]] = []

    def run(clip: Clip, contender: str, cache: Path, model: str, weights: Path | None, frames: int | None, alone: bool) -> dict[str, Any]:
        asked.append((contender, frames, alone))
        return {"frames": frames, "fps": 33.0 if alone else 1.0}

    monkeypatch.setattr(scoreboard, "run_clip", run)
    results = scoreboard.measure_all(find_clips(clips), tmp_path, "none", max_frames=500)["room"]
    assert sorted(asked) == [
        ("classical", 40, True),
        ("classical", 500, False),
        ("no_assist", 40, True),
        ("no_assist", 500, False),
        ("ours", 500, True),
    ]
    assert results["ours"]["fps"] == results["classical"]["alone"]["fps"] == 33.0
    assert results["classical"]["frames"] == 500


def test_motion_is_measured_from_the_first_pose() -> None:
    poses = random_poses(np.random.default_rng(0), 5, turn=0.0)
    moved = measure(Clip(Path("nowhere")), trajectory(poses))
    assert moved["farthest"] == pytest.approx(np.linalg.norm(poses[:, :3, 3], axis=1).max())
    assert moved["largest_turn_deg"] == pytest.approx(0.0, abs=1e-6)


def test_true_depth_is_compared_in_the_runs_own_view(tmp_path: Path) -> None:
    clip, run = tmp_path / "clip", tmp_path / "run"
    (clip / "depth").mkdir(parents=True)
    run.mkdir()
    meta = {"width": 64, "height": 48, "fx": 50.0, "fy": 50.0, "cx": 31.5, "cy": 23.5, "distortion_model": "none", "distortion": []}
    (clip / "camera.json").write_text(json.dumps({**meta, "depth_scale": 1000}))
    (clip / "depth.txt").write_text("# frame file\n0 depth/000000.png\n5 depth/000005.png\n")
    ramp = np.tile(np.linspace(1000, 4000, 64), (48, 1)).astype(np.uint16)
    for index in (0, 5):
        cv2.imwrite(str(clip / "depth" / f"{index:06d}.png"), ramp)
    small = cv2.resize(ramp.astype(np.float32), (32, 24), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(run / "000005.png"), np.rint(small * 3).astype(np.uint16))
    grid = {"width": 32, "height": 24, "fx": 25.0, "fy": 25.0, "cx": 15.5, "cy": 11.5}
    (run / "meta.json").write_text(json.dumps({"scale": 500.0, "camera": {**grid, "distortion_model": "none", "distortion": []}}))
    result = measure_depth(Clip(clip), run)
    assert result["frames"] == 1
    assert result["abs_rel"] < 0.02
    assert result["scale"] == pytest.approx(500 / 3000, rel=0.02)
    (run / "000005.png").unlink()
    with pytest.raises(EvaluationError, match="no depth map"):
        measure_depth(Clip(clip), run)


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="holds no clip"):
        find_clips(tmp_path)
