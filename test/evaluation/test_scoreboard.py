"""The scoreboard measures every contender through the public commands, goes on where it stopped,
and puts whatever fails on the page."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation import scoreboard
from flow3r_ros.evaluation.clip_runs import CLASSICAL, Clip, Contender
from flow3r_ros.evaluation.machine import fingerprint
from flow3r_ros.evaluation.scoreboard_page import write_page
from flow3r_ros.evaluation.scoreboard_tables import Board
from flow3r_ros.training.scenes import shards as scene_shards
from flow3r_ros.training.scenes.scores import FIRST_SHARD, SHARDS
from test.evaluation.clip_samples import write_clip
from test.network.factories import tiny_folder


class Run(NamedTuple):
    """A finished scoreboard."""

    arguments: list[str]
    page: Path
    cache: Path


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """One clip, two tiny models, a benchmark that is not there; scenes of one clip a shard."""
    root = tmp_path_factory.mktemp("scoreboard")
    write_clip(root / "clips" / "room", frames=8)
    models = [
        tiny_folder(root / "models" / name, seed=seed).path
        for seed, name in enumerate(("tiny", "pi3"))
    ]
    cache, page = root / "cache", root / "docs" / "results.md"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_shards, "_CLIPS_PER_SHARD", 1)
        patch.setitem(scene_shards.GRIDS, "full", ((56, 42),))
        scenes = cache / f"scenes-{fingerprint(('geometry', 'training'))}"
        assert (
            len(
                list(
                    scene_shards.write_shards(
                        scenes, FIRST_SHARD, SHARDS, "held_out", sizes=("full",)
                    )
                )
            )
            == 3
        )
        patch.setattr(scoreboard, "STARTS", (0, 2))
        arguments = [
            "--clips",
            str(root / "clips"),
            "--model",
            str(models[0]),
            "--checkpoint",
            str(models[1]),
            "--max-frames",
            "6",
        ]
        arguments += ["--output", str(page), "--cache", str(cache)]
        scoreboard.main([*arguments, "--benchmark", "sintel=/nowhere"])
    return Run(arguments, page, cache)


def test_other_checkpoints_are_columns_of_every_table(run: Run) -> None:
    text = run.page.read_text()
    titles = "tiny | pi3 | classical odometry"
    assert f"| clip |  | {titles} | standing still | straight line |" in text
    assert f"| clip | frames | {titles} |" in text
    assert "| room (6 frames, " in text
    assert "| 3 clips | " in text
    assert text.count("no such folder") == 2
    assert "*pi3*" in text
    assert "Every clip was stopped after 6 frames" in text
    lies = next(line for line in text.split("## Confident lies")[1].splitlines() if "room" in line)
    assert " of 6) |" in lies, lies
    assert "Not measured: the clips of this page are cut short." in text
    drawn = (run.page.parent / "images" / "room.svg").read_text().count("<path")
    assert drawn >= 3, "who stands still has no line: random weights' depth moves nobody"


def test_a_finished_scoreboard_measures_nothing_again(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {path: path.stat().st_mtime_ns for path in run.cache.rglob("*.json")}
    monkeypatch.setattr(scoreboard, "STARTS", (0, 2))
    again = run.cache.parent / "again.md"
    scoreboard.main([*run.arguments, "--output", str(again)])
    assert {path: path.stat().st_mtime_ns for path in run.cache.rglob("*.json")} == kept
    first, second = (
        page.read_text().split("## Accuracy")[1].split("## Benchmarks")[0]
        for page in (run.page, again)
    )
    assert first == second
    results = [json.loads(path.read_text()) for path in run.cache.rglob("result.json")]
    assert len(results) == 3 + 2
    assert all(result["summary"]["fps"] > 0 for result in results)


def test_models_whose_weights_are_here_are_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    tiny_folder(tmp_path / "flow3r" / "models" / "pi3")
    shutil.copytree(
        tmp_path / "flow3r" / "models" / "pi3", tmp_path / "flow3r" / "models" / "fetched"
    )
    os.unlink(tmp_path / "flow3r" / "models" / "fetched" / "model.safetensors")
    assert scoreboard.other_models("flow3r_nano") == ["pi3"]


def test_models_of_one_name_and_no_clips_are_refused(run: Run, tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="have the same name"):
        scoreboard.main([*run.arguments, "--checkpoint", str(tmp_path / "tiny")])
    with pytest.raises(EvaluationError, match="no clip"):
        scoreboard.main([*run.arguments, "--only", "nothing"])


def test_whatever_fails_is_a_row_of_the_page(tmp_path: Path) -> None:
    for name in ("torn", "good"):
        (tmp_path / name).mkdir()
    (tmp_path / "torn" / "groundtruth.tum").write_text("0 0 0\n")
    (tmp_path / "good" / "groundtruth.tum").write_text(
        "".join(f"{i} {i} {i * i} 0 0 0 0 1\n" for i in range(5))
    )
    ours = Contender("ours", "ours", "no_such_model")
    board = Board(
        [Clip(tmp_path / "torn"), Clip(tmp_path / "good", static=True)],
        [ours, CLASSICAL],
        ["no_such_model"],
    )
    board.results["good", "ours", 0] = {"error": "no such model"}
    board.scenes["no_such_model"] = {"error": "no such scenes"}
    write_page(tmp_path / "results.md", board)
    page = (tmp_path / "results.md").read_text()
    assert "torn/groundtruth.tum:1: 3 fields" in page
    assert "| good (5 frames, " in page
    assert "| ATE | failed | failed | " in page
    assert "|  | ours: no such model |" in page
    assert "|  | classical odometry: not measured |" in page
    assert "| good | failed | failed |" in page
    assert "| torn | failed: not measured |" in page
    assert "no such scenes" in page
    assert page.count(" †** |") + page.count(" † |") == 3
