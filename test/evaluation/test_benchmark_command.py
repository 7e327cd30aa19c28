"""`flow3r evaluate benchmark NAME --data DIR --json` reads a tiny sample of each format with the
bundled network."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from safetensors.torch import load_file
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.errors import InputError
from flow3r_ros.evaluation.benchmarks.protocols import BENCHMARKS
from flow3r_ros.network.checkpoint import write_folder
from test.evaluation.benchmark_samples import SAMPLES
from test.network.factories import tiny_folder


@pytest.mark.parametrize("name", sorted(BENCHMARKS))
def test_the_command_scores_a_tiny_sample(name: str, tmp_path: Path) -> None:
    SAMPLES[name][0](tmp_path)
    done = CliRunner().invoke(
        app,
        [
            "evaluate",
            "benchmark",
            name,
            "--data",
            str(tmp_path),
            "--model",
            "flow3r_nano",
            "--json",
        ],
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["benchmark"] == name
    assert result["model"] == "flow3r_nano"
    assert result["failed"] == {}
    assert {"RRA@30", "RTA@30", "AUC@30"} <= result["mean"].keys() or {
        "ate_rmse",
        "rpe_trans_rmse",
    } <= result["mean"].keys()


def test_a_missing_download_is_one_typed_error(tmp_path: Path) -> None:
    done = CliRunner().invoke(
        app, ["evaluate", "benchmark", "sintel", "--data", str(tmp_path), "--model", "flow3r_nano"]
    )
    assert isinstance(done.exception, InputError)
    assert "final" in str(done.exception)


def test_a_pi3_checkpoint_is_a_baseline_of_the_same_protocol(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Pi3 has the same architecture without the flow head, and poses and points do not depend on
    that head."""
    SAMPLES["co3d"][0](tmp_path / "data")
    whole = tiny_folder(tmp_path / "models" / "tiny")
    assert whole.weights is not None
    tensors = {
        key: value
        for key, value in load_file(whole.weights).items()
        if not key.startswith("flow_head.")
    }
    pi3 = write_folder(
        tmp_path / "models" / "pi3",
        whole.architecture(),
        tensors,
        whole.manifest.model_copy(update={"name": "pi3"}),
    )
    scores = {}
    for folder in (whole.path, pi3.path):
        options = ["--data", str(tmp_path / "data"), "--model", str(folder), "--json"]
        done = CliRunner().invoke(app, ["evaluate", "benchmark", "co3d", *options])
        assert done.exit_code == 0, done.output
        result = json.loads(done.stdout)
        assert result["failed"] == {}
        scores[result["model"]] = result["mean"]
    assert "no flow head" in caplog.text
    assert {"AUC@30", "depth_abs_rel", "fscore@0.05"} <= scores["pi3"].keys()
    assert scores["pi3"] == scores["tiny"]
