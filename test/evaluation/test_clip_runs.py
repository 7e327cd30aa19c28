"""Clips are measured once per version of the code and per machine; failures are said and not
kept."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.clip_runs import (
    CLASSICAL,
    Clip,
    Contender,
    find_clips,
    measure,
    run_clip,
)
from flow3r_ros.wire.tum import read_tum, write_tum
from test.evaluation.clip_samples import write_clip
from test.evaluation.factories import random_poses, trajectory


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Clip:
    root = tmp_path_factory.mktemp("clips")
    write_clip(root / "room", frames=10)
    return find_clips(root)[0]


def test_the_classical_result_is_measured_once_and_kept(clip: Clip, tmp_path: Path) -> None:
    first = run_clip(clip, CLASSICAL, tmp_path, "word")
    assert first["frames"] == first["errors"]["matched"] == 10
    assert first["summary"]["peak_rss_mb"] > 50
    assert first["summary"]["latency_ms"]["p50"] <= first["summary"]["latency_ms"]["p95"]
    kept = next(tmp_path.rglob("result.json"))
    kept.write_text(json.dumps({**json.loads(kept.read_text()), "failures": -1}))
    assert run_clip(clip, CLASSICAL, tmp_path, "word")["failures"] == -1
    assert [path.name for path in kept.parent.iterdir() if path.is_dir()] == []


def test_a_later_start_sees_the_later_frames(clip: Clip, tmp_path: Path) -> None:
    later = run_clip(clip, CLASSICAL, tmp_path, "word", max_frames=5, start=3)
    assert later["frames"] == later["errors"]["matched"] == 5
    assert read_tum(Path(later["trajectory"])).stamps_ns[0] == 300_000_000


def test_a_failure_is_said_and_tried_again(clip: Clip, tmp_path: Path) -> None:
    nobody = Contender("nobody", "nobody", "no_such_model")
    assert "no such model" in run_clip(clip, nobody, tmp_path, "word")["error"]
    assert not list(tmp_path.rglob("result.json"))
    (tmp_path / "file").write_text("where the folder should be")
    assert "file" in run_clip(clip, CLASSICAL, tmp_path / "file", "word")["error"]


def test_other_weights_and_other_code_are_another_measurement(tmp_path: Path) -> None:
    (tmp_path / "weights").write_bytes(b"1")
    before = Contender("a", "a", "m", weights=str(tmp_path / "weights")).fingerprint()
    (tmp_path / "weights").write_bytes(b"2")
    after = Contender("a", "a", "m", weights=str(tmp_path / "weights")).fingerprint()
    assert len({before, after, CLASSICAL.fingerprint()}) == 3
    assert CLASSICAL.fingerprint() == CLASSICAL.fingerprint()


def test_motion_is_measured_from_the_first_pose() -> None:
    poses = random_poses(np.random.default_rng(0), 5, turn=0.0)
    moved = measure(Clip(Path("nowhere")), trajectory(poses))
    assert moved["farthest"] == pytest.approx(np.linalg.norm(poses[:, :3, 3], axis=1).max())
    assert moved["largest_turn_deg"] == pytest.approx(0.0, abs=1e-6)


def test_what_stands_still_has_an_error_too(tmp_path: Path) -> None:
    truth = trajectory(random_poses(np.random.default_rng(0), 8))
    write_tum(tmp_path / "groundtruth.tum", truth)
    still = measure(Clip(tmp_path), trajectory(np.tile(np.eye(4), (8, 1, 1))))["errors"]
    centres = truth.poses[:, :3, 3]
    assert still["align"] == "se3"
    assert still["ate_rmse"] == pytest.approx(
        np.sqrt(np.mean(np.sum((centres - centres.mean(axis=0)) ** 2, axis=1)))
    )
    assert measure(Clip(tmp_path), truth)["errors"]["align"] == "sim3"


def test_a_folder_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="holds no clip"):
        find_clips(tmp_path)
