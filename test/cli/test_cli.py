"""The command line keeps its contract: exit codes, one line on stderr, one JSON object on
stdout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest


def flow3r(*arguments: str | Path, timeout: float = 280.0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "flow3r_ros.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def write_circle(path: Path, radius: float = 1.0) -> Path:
    import numpy as np

    angles = np.linspace(0, 6, 40)
    lines = [
        f"{100 + i * 0.1:.9f} {radius * np.cos(a)} {radius * np.sin(a)} 0 0 0 0 1"
        for i, a in enumerate(angles)
    ]
    path.write_text("\n".join(lines) + "\n")
    return path


@pytest.mark.parametrize(
    "wrong",
    [
        ("runn",),
        ("run",),
        ("run", "x.mp4"),
        ("view",),
        ("view", "out", "--live"),
        ("evaluate", "trajectory", "a", "b", "--align", "maybe"),
    ],
)
def test_wrong_usage_exits_with_2(wrong: tuple[str, ...]) -> None:
    result = flow3r(*wrong)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_bad_data_exits_with_1_and_one_line(tmp_path: Path) -> None:
    result = flow3r("run", tmp_path / "absent.mp4", "--output", tmp_path / "out")
    assert result.returncode == 1
    assert "absent.mp4" in result.stderr.splitlines()[-1]
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "out").exists()


def test_an_unknown_setting_is_named(tmp_path: Path) -> None:
    (tmp_path / "bad.yaml").write_text("engine: {windw: 3}")
    result = flow3r(
        "run", tmp_path, "--output", tmp_path / "out", "--config", tmp_path / "bad.yaml"
    )
    assert result.returncode == 1
    assert "windw" in result.stderr


def test_trajectory_metrics_as_json(tmp_path: Path) -> None:
    reference, doubled = (
        write_circle(tmp_path / "ref.tum"),
        write_circle(tmp_path / "est.tum", radius=2.0),
    )
    result = flow3r("evaluate", "trajectory", doubled, reference, "--json")
    assert result.returncode == 0, result.stderr
    metrics = json.loads(result.stdout)
    assert metrics["ate_rmse"] < 1e-9
    assert metrics["scale"] == pytest.approx(0.5)
    assert metrics["matched"] == metrics["ref_frames"] == 40
    unaligned = json.loads(
        flow3r("evaluate", "trajectory", doubled, reference, "--align", "none", "--json").stdout
    )
    assert unaligned["ate_rmse"] == pytest.approx(1.0)


def test_models_list_shows_licences() -> None:
    result = flow3r("models", "list", "--json")
    assert result.returncode == 0, result.stderr
    models = {entry["name"]: entry for entry in json.loads(result.stdout)["models"]}
    assert "check the licence" in models["flow3r_large"]["license_note"]
    assert models["flow3r_large"]["parameters"] == 1_001_053_694


def test_doctor_says_what_to_do() -> None:
    result = flow3r("doctor", "--json", "--model", "no_such_model")
    assert result.returncode == 1
    checks = {entry["check"]: entry for entry in json.loads(result.stdout)["checks"]}
    assert checks["torch"]["status"] == "ok"
    assert checks["model no_such_model"]["status"] == "failed"
    assert checks["model no_such_model"]["cure"]
