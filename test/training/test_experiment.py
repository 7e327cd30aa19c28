"""The controlled experiment: every row sees what it should, one command makes everything, and a
second one only reads it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.errors import TrainingError
from flow3r_ros.training import experiment as module
from flow3r_ros.training import experiment_clips, experiment_gates, experiment_page
from flow3r_ros.training.experiment import Budget, _source, rows_of, run_experiment
from flow3r_ros.training.experiment_clips import OneGrid, rendered, room_clip
from flow3r_ros.training.experiment_page import READING, Results, render_table, write_page
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scenes.shards import training_clip

TINY = Budget(
    steps=2,
    pretraining_steps=1,
    clips_per_step=2,
    labelled=1,
    unlabelled=1,
    pretraining=1,
    held_out=1,
)


@pytest.fixture
def few_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of two clips."""
    monkeypatch.setattr(experiment_clips, "_CLIPS_PER_SHARD", 2)


def test_rows_are_those_of_the_paper_plus_more_clips() -> None:
    rows = {row.name: row for row in rows_of(48)}
    assert rows["3d-sup"].unlabelled == 0
    assert rows["3d-sup++"].labels
    assert [
        rows[name].unlabelled for name in ("flow-factored", "flow-factored 3x", "flow-factored 10x")
    ] == [48, 144, 480]
    assert {rows[f"flow-{kind}"].kind for kind in ("factored", "projective", "tracking")} == {
        "factored",
        "projective",
        "tracking",
    }


def test_unlabelled_clips_bring_flow_but_no_depth_or_poses_and_the_seed_chooses_them(
    samples: list[Sample],
) -> None:
    clips = samples
    budget = Budget(clips_per_step=4, labelled=2, unlabelled=2)
    rows = {row.name: row for row in rows_of(2)}
    names = set()
    for seed in range(3):
        batch = _source(rows["flow-factored"], clips, seed, budget).batch(0)
        assert [sample.depth is None for sample in batch] == [False, False, True, True]
        assert all(sample.poses is None and np.any(sample.covisibility > 0) for sample in batch[2:])
        names.add(frozenset(sample.name for sample in batch[:2]))
    assert len(names) > 1
    assert all(
        sample.depth is not None for sample in _source(rows["3d-sup++"], clips, 1, budget).batch(0)
    )
    labelled = {
        sample.name
        for step in range(8)
        for sample in _source(rows["3d-sup"], clips, 1, budget).batch(step)
    }
    assert len(labelled) == 2


def test_a_step_has_one_grid(samples: list[Sample]) -> None:
    tall = [training_clip(seed, [(42, 56)], "photographs", frames=2)[0] for seed in range(2)]
    clips = [samples[0], tall[0], samples[1], tall[1]]
    for step in range(8):
        batch = OneGrid(clips[:2], clips[2:], 3, seed=1).batch(step)
        assert len(batch) == 3
        assert len({sample.rgb.shape for sample in batch}) == 1


def test_a_room_clip_moves_covisibly_and_is_the_same_again() -> None:
    clip, again = (room_clip(3, "train") for _ in range(2))
    assert clip.rgb.shape == (2, 56, 70, 3)
    assert clip.pairs.tolist() == [[0, 1], [1, 0]]
    np.testing.assert_array_equal(clip.rgb, again.rgb)
    np.testing.assert_array_equal(clip.flow, again.flow)
    assert clip.poses is not None
    turned = np.rad2deg(np.arccos((np.trace(clip.poses[1, :3, :3]) - 1) / 2))
    assert 0.5 < turned < 20
    assert (clip.covisibility > 0.5).mean() > 0.4


@pytest.mark.usefixtures("few_clips")
def test_too_few_clips_are_said_before_anything_is_trained(tmp_path: Path) -> None:
    small = rendered(tmp_path / "data", 0, 2, "train")
    with pytest.raises(TrainingError, match="needs 11 clips and some to pretrain on, there are 2"):
        run_experiment(tmp_path / "out", [small, small], [1], TINY, "")
    assert not (tmp_path / "out").exists()


def _command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Run the command on a tiny budget; what `experiment.json` then says."""
    monkeypatch.setattr("flow3r_ros.training.experiment.Budget", lambda steps: TINY)
    arguments = ["train", "--experiment", "factored", "--output", str(tmp_path), "--json"]
    arguments += ["--seeds", "3", "--max-steps", "2"]
    monkeypatch.setattr(sys, "argv", ["flow3r", *arguments])
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    told: dict[str, Any] = json.loads((tmp_path / "experiment.json").read_text(encoding="utf-8"))
    return told


@pytest.mark.usefixtures("few_clips")
def test_a_start_that_fails_the_gates_trains_no_row_and_the_page_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = _command(tmp_path, monkeypatch)
    assert [row["row"] for row in told["rows"]] == ["start"]
    page = (tmp_path / "experiments.md").read_text(encoding="utf-8")
    assert "flow3r train --experiment factored" in page
    assert "**Not measured**: gate rotation, factored head. No row was trained." in page
    assert "3d-sup |" not in page
    assert not (tmp_path / "experiments.svg").exists()
    assert not (tmp_path / "3d-sup_3").exists()


@pytest.mark.usefixtures("few_clips")
def test_without_a_control_that_separates_only_its_two_rows_are_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_gates, "FACTOR", 0.0)
    told = _command(tmp_path, monkeypatch)
    assert [row["row"] for row in told["rows"]] == ["start", "3d-sup", "3d-sup++"]
    page = (tmp_path / "experiments.md").read_text(encoding="utf-8")
    assert "**Not measured**: at this budget" in page
    assert "flow-factored |" not in page


@pytest.mark.usefixtures("few_clips")
def test_one_command_renders_trains_and_writes_the_page_and_a_second_one_trains_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(experiment_gates, "FACTOR", 0.0)
    for user in (module, experiment_page):
        monkeypatch.setattr(user, "separating", lambda rows: ["abs_rel", "epe_geometry"])
    told = _command(tmp_path, monkeypatch)
    page = (tmp_path / "experiments.md").read_text(encoding="utf-8")
    assert all(f"| {row.name} | 1 | " in page for row in rows_of(1))
    assert "| supervision | seeds | abs_rel | epe_geometry |" in page
    assert "not measured:\n  rta_15, direction_deg" in page
    assert (tmp_path / "experiments.svg").stat().st_size > 1000
    assert [row["row"] for row in told["rows"]] == ["start", *(row.name for row in rows_of(1))]
    assert all(
        np.isfinite([row["abs_rel"], row["epe_geometry"], row["rta_15"]]).all()
        for row in told["rows"]
    )

    def nothing(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "run", nothing)
    assert _command(tmp_path, monkeypatch)["rows"] == told["rows"]


@pytest.mark.parametrize(
    "wrong", [["--config", "x.yaml"], ["--resume"], ["--data", "a", "--data", "b", "--data", "c"]]
)
def test_options_that_mean_nothing_to_an_experiment_are_refused(
    tmp_path: Path, wrong: list[str]
) -> None:
    result = CliRunner().invoke(
        app, ["train", "--experiment", "factored", "--output", str(tmp_path), *wrong]
    )
    assert result.exit_code == 2


def test_training_without_a_config_or_data_is_wrong_usage(tmp_path: Path) -> None:
    assert (
        CliRunner().invoke(app, ["train", "--output", str(tmp_path), "--data", "x"]).exit_code == 2
    )
    assert (
        CliRunner()
        .invoke(app, ["train", "--output", str(tmp_path), "--config", "x.yaml"])
        .exit_code
        == 2
    )


def test_the_table_shows_mean_spread_and_published_numbers() -> None:
    results = [
        {"row": "3d-sup", "seed": 1, "rra_5": 0.5, "abs_rel": 0.4},
        {"row": "3d-sup", "seed": 2, "rra_5": 0.7, "abs_rel": 0.4},
    ]
    table = render_table(
        [*results, {"row": "flow-factored 3x", "seed": 1, "rra_5": 0.9}], ["rra_5", "abs_rel"]
    )
    assert "| 3d-sup | 2 | 0.600 ± 0.100 |" in table
    assert "0.750 / 0.693" in table
    assert "| flow-factored 3x | 1 | 0.900 |" in table


def test_what_a_person_wrote_stays_when_the_numbers_change(tmp_path: Path) -> None:
    budget = {
        "steps": 1,
        "pretraining_steps": 1,
        "clips_per_step": 1,
        "labelled": 1,
        "unlabelled": 1,
        "held_out": 1,
    }
    results = Results(command="", machine="", seeds=[1], budget=budget, introduction="", rows=[])
    results["rows"] = [{"row": "start", "seed": 0, "rotation_deg": 0.5, "seconds": 1.0}]
    page = write_page(tmp_path / "page.md", results)
    page.write_text(
        page.read_text(encoding="utf-8") + f"{READING}\n\nMind the budget.\n", encoding="utf-8"
    )
    results["rows"][0]["rotation_deg"] = 0.7
    write_page(page, results)
    text = page.read_text(encoding="utf-8")
    assert text.endswith(f"{READING}\n\nMind the budget.\n")
    assert "0.700 deg" in text
    assert "0.500 deg" not in text
