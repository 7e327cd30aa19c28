"""A network by itself on held-out scenes, through the public command."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.errors import TrainingError
from flow3r_ros.training.scenes import scores as scene_scores
from flow3r_ros.training.scenes import shards as scene_shards
from test.network.factories import tiny_folder


def test_scenes_are_rendered_once_and_the_network_is_scored_on_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_shards, "_CLIPS_PER_SHARD", 1)
    monkeypatch.setitem(scene_shards.GRIDS, "full", ((56, 42),))
    model = tiny_folder(tmp_path / "tiny").path
    command = [
        "evaluate",
        "scenes",
        "--data",
        str(tmp_path / "scenes"),
        "--model",
        str(model),
        "--json",
    ]
    first = json.loads(CliRunner().invoke(app, command).stdout)
    shards = sorted((tmp_path / "scenes" / "full").iterdir())
    assert len(shards) == scene_scores.SHARDS
    assert (first["model"], first["clips"], first["frames"]) == ("tiny", 3, 12)
    assert first["abs_rel_constant"] > 0
    written = [path.stat().st_mtime_ns for path in shards]
    assert json.loads(CliRunner().invoke(app, command).stdout) == first
    assert [path.stat().st_mtime_ns for path in shards] == written


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    model = tiny_folder(tmp_path / "tiny").path
    done = CliRunner().invoke(
        app, ["evaluate", "scenes", "--data", str(tmp_path / "file"), "--model", str(model)]
    )
    assert isinstance(done.exception, TrainingError)
