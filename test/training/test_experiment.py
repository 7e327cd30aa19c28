"""The controlled experiment: every row sees what it should, one command makes everything, and a
second one only reads it."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.errors import TrainingError
from flow3r_ros.training import experiment as module
from flow3r_ros.training import experiment_clips, experiment_gates
from flow3r_ros.training.experiment import Budget, _source, rows_of, run_experiment
from flow3r_ros.training.experiment_clips import OneGrid, rendered
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
    held_out=2,
)


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
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


@pytest.mark.usefixtures("small_shards")
def test_too_few_clips_are_said_before_anything_is_trained(tmp_path: Path) -> None:
    few = rendered(tmp_path / "data", 0, 2, "train")
    with pytest.raises(TrainingError, match="needs 11 clips and some to pretrain on, there are 2"):
        run_experiment(tmp_path / "out", [few, few], [1], TINY, "")
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("small_shards")
def test_one_command_goes_as_far_as_gates_and_control_allow_and_trains_nothing_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow3r_ros.training.experiment.Budget", lambda: TINY)
    arguments = ["train", "--experiment", "factored", "--output", str(tmp_path), "--json"]
    arguments += ["--seeds", "3"]
    monkeypatch.setattr(sys, "argv", ["flow3r", *arguments])

    def rows_after_a_run() -> list[str]:
        result = CliRunner().invoke(app, arguments, catch_exceptions=False)
        assert result.exit_code == 0, result.output
        results = json.loads((tmp_path / "experiment.json").read_text(encoding="utf-8"))
        for row in results["rows"]:
            assert np.isfinite([row["abs_rel"], row["epe_geometry"], row["rta_15"]]).all()
        return [row["row"] for row in results["rows"]]

    page, figure = tmp_path / "experiments.md", tmp_path / "experiments.svg"
    assert rows_after_a_run() == ["start"]
    assert "**Not measured**: gate rotation" in page.read_text(encoding="utf-8")
    monkeypatch.setattr(experiment_gates, "FACTOR", 0.0)
    assert rows_after_a_run() == ["start", "3d-sup", "3d-sup++"]
    assert "positive control: **failed**" in page.read_text(encoding="utf-8")
    assert not figure.exists()
    monkeypatch.setattr(module, "separating", lambda rows: ["abs_rel"])
    monkeypatch.setattr("flow3r_ros.training.experiment_page.separating", lambda rows: ["abs_rel"])
    every = rows_after_a_run()
    assert sorted(every) == sorted(["start", *(row.name for row in rows_of(1))])
    text = page.read_text(encoding="utf-8")
    assert "flow3r train --experiment factored" in text
    assert all(f"| {row.name} | 1 | " in text for row in rows_of(1))
    assert figure.stat().st_size > 1000

    def nothing(*arguments: object, **options: object) -> None:
        raise AssertionError("trained again")

    monkeypatch.setattr(module, "run", nothing)
    assert rows_after_a_run() == every


@pytest.mark.parametrize(
    "wrong",
    [
        ["--config", "x.yaml"],
        ["--resume"],
        ["--max-steps", "5"],
        ["--data", "a", "--data", "b", "--data", "c"],
    ],
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
    others = [{"row": "flow-factored 3x", "seed": 1, "rra_5": 0.9}]
    table = render_table([*results, *others], ["rra_5", "abs_rel"])
    assert "| 3d-sup | 2 | 0.600 ± 0.100 |" in table
    assert "0.750 / 0.693" in table
    assert "| flow-factored 3x | 1 | 0.900 |" in table


def _results(rows: list[dict[str, Any]]) -> Results:
    budget = asdict(TINY)
    return Results(command="", machine="", seeds=[1], budget=budget, introduction="", rows=rows)


def _row(name: str, seed: int, abs_rel: float) -> dict[str, Any]:
    same = {"rotation_deg": 2.0, "rta_15": 0.5, "direction_deg": 30.0, "epe_geometry": 2.0}
    return {"row": name, "seed": seed, "abs_rel": abs_rel, "seconds": 1.0, **same}


START = {
    "row": "start",
    "seed": 0,
    "seconds": 1.0,
    "rotation_deg": 2.0,
    "rotation_deg_identity": 8.0,
    "epe_head": 2.0,
    "epe_zero": 8.0,
}


def test_a_page_of_a_failed_gate_says_which_with_its_numbers_and_shows_no_row(
    tmp_path: Path,
) -> None:
    page = write_page(tmp_path / "page.md", _results([{**START, "epe_head": 5.0}]))
    text = page.read_text(encoding="utf-8")
    assert "**Not measured**: gate factored head." in text
    assert "factored head: 5.000 px, zero flow's 8.000 px (1.60 times better, needed 2)" in text
    assert "|" not in text


def test_rows_are_shown_only_in_measures_in_which_the_control_separates(tmp_path: Path) -> None:
    def text_of(control: list[float]) -> str:
        rows = [START, _row("flow-factored", 1, 0.4)]
        rows += [_row("3d-sup", seed, 0.5) for seed in range(4)]
        rows += [_row("3d-sup++", seed, value) for seed, value in enumerate(control)]
        return write_page(tmp_path / "page.md", _results(rows)).read_text(encoding="utf-8")

    shown = text_of([0.3, 0.3, 0.4, 0.4])
    assert "| supervision | seeds | abs_rel | published RRA@30 / RTA@30 |" in shown
    assert "| flow-factored | 1 | 0.400 |" in shown
    assert (tmp_path / "page.svg").exists()
    hidden = text_of([0.3, 0.3, 0.4, 0.5])
    assert "**Not measured**" in hidden
    assert "| 3d-sup++ | 4 |" in hidden
    assert "flow-factored" not in hidden
    assert not (tmp_path / "page.svg").exists()


def test_what_a_person_wrote_stays_when_the_numbers_change(tmp_path: Path) -> None:
    page = write_page(tmp_path / "page.md", _results([{**START, "epe_head": 5.0}]))
    page.write_text(
        page.read_text(encoding="utf-8") + f"{READING}\n\nMind the budget.\n", encoding="utf-8"
    )
    write_page(page, _results([{**START, "epe_head": 7.0}]))
    text = page.read_text(encoding="utf-8")
    assert text.endswith(f"{READING}\n\nMind the budget.\n")
    assert "7.000 px" in text
    assert "5.000 px" not in text
