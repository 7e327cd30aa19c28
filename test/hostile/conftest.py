"""A data folder of the test's own, and commands that must fail."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flow3r_ros.cli.main import main


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder is the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "flow3r" / "models"


@pytest.fixture
def flow3r(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command that must fail with exit code 1 and one line; returns the line."""

    def fails(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["flow3r", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        error = capsys.readouterr().err
        assert exit_.value.code == 1, error
        assert len(error.splitlines()) == 1, error
        assert error.startswith("flow3r: ")
        return error

    return fails
