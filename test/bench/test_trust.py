"""The suites about trust: faults on clips, consistency on clips and rooms; what their rows say."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

from flow3r_ros.bench import faults as bench_faults
from flow3r_ros.bench.consistency import measure_clips, measure_scenes
from flow3r_ros.bench.faults import clip_name, measure_faults, truth_of, words_of
from flow3r_ros.bench.memory import SMALL, knowing_predictor, small_config, small_pictures
from flow3r_ros.bench.plane_scene import PlaneScene
from flow3r_ros.bench.suites import render_suites, run_suites
from flow3r_ros.cli.main import app
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.faults import Verdict
from flow3r_ros.evaluation.faults_clips import splices
from flow3r_ros.evaluation.scoreboard_trust import faults_table
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.wire.tum import write_tum
from test.cases.workshop import flow3r


def plane_clip(folder: Path, frames: int) -> Path:
    """The swaying plane as a clip folder, with truth and with the depth of its first frame."""
    (folder / "frames").mkdir(parents=True)
    stamps = np.arange(frames) * 100_000_000
    for index, rgb in enumerate(small_pictures(frames)):
        cv2.imwrite(str(folder / "frames" / f"{index:06d}.png"), rgb[..., ::-1])
    (folder / "timestamps.txt").write_text("".join(f"{stamp / 1e9:.6f}\n" for stamp in stamps))
    save_camera(SMALL, folder / "camera.json")
    scene = PlaneScene()
    write_tum(
        folder / "groundtruth.tum",
        Trajectory(stamps, np.stack([scene.pose(i) for i in range(frames)])),
    )
    return folder


def test_the_fault_suite_has_a_row_for_each_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bench_faults, "splices", lambda clip, film: splices(clip, film)[:3])
    clips = [plane_clip(tmp_path / "one" / "clip", 44), plane_clip(tmp_path / "short", 8)]
    result = measure_faults(knowing_predictor(), clips, small_config())
    names = [row["name"] for row in result["rows"]]
    assert names == [
        "one_clip: clean",
        "one_clip: cut to another film",
        "one_clip: jump in the same room",
        "short",
    ]
    assert "a fault needs 36" in result["rows"][-1]["note"]
    assert (result["faults"], result["held against"]) == (2, {"one_clip": "truth"})
    page = render_suites(run_suites({"faults": lambda: result}))
    assert "| one_clip: cut to another film | " in page
    board = faults_table({"suites": {"faults": result}})
    assert "| fault | one_clip |" in board
    assert "short: the clip has 8 frames" in board
    with pytest.raises(EvaluationError, match="second film"):
        measure_faults(knowing_predictor(), clips[:1], small_config())


def test_verdicts_in_words() -> None:
    good = Verdict("black", "noticed", True, 1, False, 0, True, 3, 0.2, 9, "dark")
    assert words_of(vars(good)) == "ok, noticed at frame 1, back at frame 3, 9 lost, said: dark"
    bad = Verdict("cut", "noticed", False, None, False, 12, True, None)
    assert words_of(vars(bad)) == "NOT ok, not noticed, 12 lies, never back"
    assert words_of(vars(Verdict("nan", "noticed", False, error="KeyError"))) == "failed: KeyError"


def test_truth_and_names_of_clips(tmp_path: Path) -> None:
    clip = plane_clip(tmp_path / "demo" / "clip", 3)
    assert clip_name(clip) == "demo_clip"
    assert clip_name(tmp_path / "other") == "other"
    found = truth_of(clip / "frames.mp4"), truth_of(clip)
    assert found[1] is not None
    assert len(found[1].poses) == 3
    assert truth_of(tmp_path) is None


def test_consistency_of_a_clip_and_of_rooms(tmp_path: Path) -> None:
    clip = plane_clip(tmp_path / "plane", 14)
    rows = measure_clips(knowing_predictor(), [clip, tmp_path / "nowhere"], small_config(), 12)
    by_name = {row["name"]: row for row in rows}
    assert by_name["plane: confident lies"]["median"] == 0
    assert by_name["plane: RRA@5 over pairs"]["median"] == 1
    assert "plane: NEES/6 over 10 frames" in by_name
    assert "no such file" in by_name["nowhere"]["note"]
    rooms = measure_scenes(knowing_predictor(), small_config(), scenes=1, frames=4)
    assert rooms[0]["name"] == "1 synthetic rooms: confident lies"
    calibration = rooms[-1]["calibration"]
    assert 0 <= calibration["error"] <= 1
    assert calibration["pixels"] > 1000
    assert "goal: at most .08" in rooms[-1]["note"]


def test_what_is_no_recording_is_said_before_anything_is_measured(tmp_path: Path) -> None:
    (tmp_path / "note.txt").write_text("no clip")
    for wrong, why in (("nowhere", "no such file or folder"), ("note.txt", "is a text file")):
        refusal = flow3r("bench", "--suite", "loops", "--clip", tmp_path / wrong).refusal
        assert why in refusal


def test_a_suite_that_cannot_run_is_no_success() -> None:
    done = flow3r("bench", "--suite", "rooms", "--model", "no_such_model")
    assert done.code == 1
    assert "no such model" in done.out


def test_options_are_refused_where_a_suite_takes_none() -> None:
    told = CliRunner().invoke(app, ["bench", "--suite", "network", "--clip", "somewhere"])
    assert told.exit_code == 2
    told = CliRunner().invoke(app, ["bench", "--suite", "rooms", "--clip", "somewhere"])
    assert told.exit_code == 2
