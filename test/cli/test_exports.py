"""`flow3r export lerobot` as it is typed: one JSON object, and an exit code that says whether every
episode has estimates."""

from __future__ import annotations

import json
from pathlib import Path

from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.datasets.lerobot import open_lerobot
from test.datasets.lerobot_factory import video_of, write_lerobot
from test.offline.factory import small_clip


def test_a_dataset_is_copied_with_the_bundled_model(tmp_path: Path) -> None:
    frames = list(small_clip(3).rgb)
    root = write_lerobot(tmp_path / "data", [frames, frames])
    short = write_lerobot(tmp_path / "short", [frames])
    command = ["export", "lerobot", str(root), "-t", "front", "--no-depth", "--json", "-o"]
    whole = CliRunner().invoke(app, [*command, str(tmp_path / "copy")])
    assert whole.exit_code == 0, whole.output
    report = json.loads(whole.stdout)
    assert (report["episodes"], report["frames"], report["failed"]) == (2, 6, {})
    assert [key.rpartition(".")[2] for key in report["features"]] == ["pose", "tracking", "segment"]
    assert "flow3r.front.pose" in open_lerobot(tmp_path / "copy").features
    video_of(root).write_bytes(video_of(short).read_bytes())
    part = CliRunner().invoke(app, [*command, str(tmp_path / "part")])
    assert part.exit_code == 1
    assert list(json.loads(part.stdout)["failed"]) == ["episode_000001"]
    assert "flow3r: episode_000001: " in part.stderr
