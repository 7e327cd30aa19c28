"""What stands there stays."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from flow3r_ros.errors import OutputError
from flow3r_ros.network.catalog import read_folder
from flow3r_ros.network.checkpoint import import_model
from flow3r_ros.paths import OutputFolder
from flow3r_ros.training.folder import run_folder
from test.hostile.workshop import contents, download, victim
from test.network.factories import tiny_folder

ROOT = Path(__file__).resolve().parents[2]


def strangers(tmp_path: Path, target: Path, kind: str) -> Path:
    """Something that is not a model folder of ours, at `target`; returns the folder to watch."""
    if kind == "link":
        work = victim(tmp_path / "victim")
        target.parent.mkdir(parents=True)
        target.symlink_to(work)
        return work
    if kind == "link to ours":
        target.parent.mkdir(parents=True)
        target.symlink_to(tiny_folder(tmp_path / "ours" / "tiny").path)
        return tmp_path / "ours"
    if kind == "file":
        target.parent.mkdir(parents=True)
        target.write_text("years")
        return target.parent
    if kind == "empty":
        target.mkdir(parents=True)
        return target
    if kind == "ours with a guest":
        tiny_folder(target)
        return victim(target)
    work = victim(target)
    if kind == "another manifest":
        (work / "manifest.yaml").write_text("apiVersion: v1\nkind: Pod\n")
    return work


KINDS = [
    *("folder", "empty", "file", "link", "link to ours", "another manifest", "ours with a guest"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_import_replaces_no_stranger(
    tmp_path: Path, home: Path, flow3r: Callable[..., str], kind: str
) -> None:
    work = strangers(tmp_path, home / "tiny", kind)
    before = contents(work)
    file = download(tmp_path / "download")
    for options in ((), ("--replace",)):
        assert "exists already" in flow3r("models", "import", file, *options)
    assert contents(work) == before
    assert [path.name for path in home.iterdir()] == ["tiny"]


def test_import_replaces_ours_only_when_asked(
    tmp_path: Path, home: Path, flow3r: Callable[..., str]
) -> None:
    older = tiny_folder(home / "tiny", evidence=True).manifest.sha256
    file = download(tmp_path / "download")
    assert "--replace" in flow3r("models", "import", file)
    assert read_folder(home / "tiny").manifest.sha256 == older
    assert import_model(file, replace=True).manifest.sha256 != older
    assert [path.name for path in home.iterdir()] == ["tiny"]


@pytest.mark.parametrize("kind", ["folder", "another manifest", "link"])
def test_training_replaces_no_stranger(tmp_path: Path, kind: str) -> None:
    work = strangers(tmp_path, tmp_path / "run" / "model", kind)
    with pytest.raises(OutputError, match="exists already"), run_folder(tmp_path / "run"):
        pytest.fail("it was refused only after the work")
    assert "thesis.txt" in contents(work)


@pytest.mark.parametrize("command", ["run", "replay", "from-video"])
@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link"])
def test_outputs_replace_nothing(
    tmp_path: Path, flow3r: Callable[..., str], command: str, kind: str
) -> None:
    output = tmp_path / "deep" / "out"
    work = strangers(tmp_path, output, kind)
    before = contents(work)
    words = ["bags", command] if command == "from-video" else [command]
    assert "exists already" in flow3r(*words, tmp_path / "absent", "--output", output)
    assert contents(work) == before


@pytest.mark.parametrize("command", ["run", "replay", "from-video"])
def test_two_writers_of_one_output(
    tmp_path: Path, flow3r: Callable[..., str], command: str
) -> None:
    """Refused before the work: the input, which is not there, is not even looked at."""
    words = ["bags", command] if command == "from-video" else [command]
    with OutputFolder(tmp_path / "out"):
        line = flow3r(*words, tmp_path / "absent", "--output", tmp_path / "out")
    assert "being written by another process" in line


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_two_trainings_in_one_folder(
    tmp_path: Path, flow3r: Callable[..., str], resume: tuple[str, ...]
) -> None:
    config = ROOT / "config" / "train" / "nano.yaml"
    words = ("train", "--config", config, "--data", tmp_path / "absent", "--output")
    with run_folder(tmp_path / "run"):
        assert "another process is training" in flow3r(*words, tmp_path / "run", *resume)
    assert not list((tmp_path / "run").iterdir())


def test_an_import_beside_an_import(tmp_path: Path, home: Path, flow3r: Callable[..., str]) -> None:
    file = download(tmp_path / "download")
    with OutputFolder(home / "tiny"):
        assert "being written" in flow3r("models", "import", file)
