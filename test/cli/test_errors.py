"""Whatever goes wrong is one line; --debug shows the rest."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flow3r_ros.cli.main import main
from test.cases.workshop import flow3r


@pytest.mark.parametrize("error", [KeyError("x"), MemoryError(), RecursionError("deep"), OSError()])
@pytest.mark.parametrize("debug", [False, True])
def test_an_error_nobody_foresaw(
    error: Exception, debug: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(sys.modules[main.__module__], "app", fail)
    monkeypatch.setattr("sys.argv", ["flow3r", "run", *(["--debug"] if debug else [])])
    with pytest.raises(SystemExit) as end:
        main()
    lines = capsys.readouterr().err.splitlines()
    assert end.value.code == 1
    assert lines[-1].startswith("flow3r: ")
    assert ("Traceback (most recent call last):" in lines) == debug
    assert debug or len(lines) == 1


def test_debug_is_taken_wherever_it_stands(tmp_path: Path) -> None:
    missing = tmp_path / "missing.mp4"
    for arguments in (("--debug", "run", missing), ("run", missing, "--debug")):
        done = flow3r(*arguments, "--output", tmp_path / "out")
        assert done.code == 1
        assert "Traceback" in done.err
        assert "no such file or folder" in done.err.splitlines()[-1]


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "s3://bucket/drive.mp4", "--output", "s3://bucket/out"),
        ("run", "drive.mp4", "--output=gs://bucket/out"),
        ("replay", "bag", "-o", "S3://bucket/out"),
        ("evaluate", "run", "s3://bucket/tum", "--output", "out"),
    ],
)
def test_an_address_in_object_storage_makes_no_folder_of_its_name(
    arguments: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = flow3r(*arguments)
    assert done.code == 1
    assert "rclone mount" in done.err
    assert "addresses are for label, train and the inputs of run and replay" in done.err
    assert len(done.err.splitlines()) == 1
    assert not list(tmp_path.iterdir())
