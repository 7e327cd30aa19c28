"""`flow3r evaluate benchmark NAME --data DIR --json` reads a tiny sample of each format with the bundled network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from flow3r_ros.cli import app
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.benchmarks.run import BENCHMARKS
from test.evaluation.benchmark_samples import SAMPLES


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_command_scores_a_tiny_sample(name: str, tmp_path: Path) -> None:
    SAMPLES[name][0](tmp_path)
    done = CliRunner().invoke(app, ["evaluate", "benchmark", name, "--data", str(tmp_path), "--model", "flow3r_nano", "--json"])
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["benchmark"] == name
    assert result["model"] == "flow3r_nano"
    assert result["failed"] == {}
    assert {"RRA@30", "RTA@30", "AUC@30"} <= result["mean"].keys() or {"ate_rmse", "rpe_trans_rmse"} <= result["mean"].keys()


def test_a_missing_download_is_one_typed_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["evaluate", "benchmark", "sintel", "--data", str(tmp_path), "--model", "flow3r_nano"])
    assert isinstance(done.exception, EvaluationError)
    assert "final" in str(done.exception)
