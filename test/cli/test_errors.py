"""Whatever goes wrong is one line; --debug shows the rest."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from flow3r_ros.cli.main import main
from flow3r_ros.report.record import RunRecord
from test.cases.workshop import flow3r

CLIP = Path(__file__).resolve().parents[2] / "demo" / "clip"


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


def test_a_package_that_is_missing_is_named(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A core one: what optional ones say stands in test_package."""
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "flow3r_ros.network.runner", raising=False)
    monkeypatch.delattr("flow3r_ros.network.runner", raising=False)
    done = flow3r("run", CLIP, "--output", tmp_path / "out")
    assert done.refusal.endswith("flow3r: torch is not installed; pip install torch")


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


COMMANDS: dict[str, tuple[str, ...]] = {
    "a recording": ("run", "{}", "-o", "out"),
    "settings": ("run", "CLIP", "-o", "out", "-c", "{}"),
    "a camera": ("bags", "from-video", "CLIP", "-o", "out", "--camera", "{}"),
    "a model": ("models", "info", "{}"),
    "weights": ("models", "import", "{}", "--name", "other"),
    "an estimate": ("evaluate", "trajectory", "{}", "CLIP/groundtruth.tum"),
    "a truth": ("evaluate", "trajectory", "CLIP/groundtruth.tum", "{}"),
    "a run": ("report", "{}", "-o", "out"),
    "several runs": ("report", "{}", "{}", "-o", "out"),
    "a map": ("map", "info", "{}"),
    "a part of a map": ("map", "merge", "{}", "{}", "-o", "out"),
    "an episode": ("export", "lerobot", "{}", "-o", "out"),
    "a source of labels": ("label", "{}", "-o", "out"),
    "a plan of training": ("train", "-c", "{}", "-d", "CLIP", "-o", "out"),
}
WRONG = ("missing", "folder", "empty", "bytes", "loop")
FINE = {("settings", "empty"), ("a plan of training", "empty")}
"""an empty YAML file is one that changes nothing"""


@pytest.mark.parametrize("wanted", COMMANDS)
def test_what_stands_at_a_path_is_said_where_something_else_is_wanted(
    wanted: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one line with a cure, without the numbers and class names of the program."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("empty").touch()
    Path("bytes").write_bytes(bytes(range(256)) * 40)
    Path("loop").symlink_to("loop")
    before = set(tmp_path.iterdir())
    for wrong in (each for each in WRONG if (wanted, each) not in FINE):
        done = flow3r(*(part.format(wrong).replace("CLIP", str(CLIP)) for part in COMMANDS[wanted]))
        assert done.code == 1, (wrong, done.err)
        (line,) = done.err.splitlines()
        assert line.startswith(f"flow3r: {wrong}"), line
        assert "; " in line, "with a cure"
        assert not re.search(r"Errno|\w(Error|Exception)\b|fault of flow3r|codec", line), line
    assert {*tmp_path.iterdir()} == before


def test_a_run_in_place_of_its_trajectory_names_the_trajectory(tmp_path: Path) -> None:
    (tmp_path / "trajectory.tum").write_text((CLIP / "groundtruth.tum").read_text())
    (tmp_path / "a.tum").touch()
    done = flow3r("evaluate", "trajectory", tmp_path, CLIP / "groundtruth.tum")
    assert f"{tmp_path}: cannot be read (it is a folder)" in done.err
    assert f"give {tmp_path / 'trajectory.tum'}" in done.err


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (("run", "CLIP", "-n", "3", "-o", "file"), "exists"),
        (("run", "CLIP", "-n", "3", "-o", "file/out"), "a file stands there"),
        (("bags", "from-video", "CLIP", "-n", "3", "-o", "file"), "exists"),
        (("report", "run", "-o", "folder"), "it is a folder"),
        (("report", "run", "-o", "nowhere/report.html"), "no such file or folder"),
        (("report", "run", "-o", "file/report.html"), "a file stands where a folder is expected"),
    ],
)
def test_an_output_that_cannot_be(
    command: tuple[str, ...], why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_text("mine")
    if "run" in command[1:]:
        Path("run").mkdir()
        RunRecord("walk").save(Path("run/record.npz"))
    done = flow3r(*(part.replace("CLIP", str(CLIP)) for part in command))
    assert why in done.refusal, done.err
    assert "Errno" not in done.err
    assert Path("file").read_text() == "mine"
