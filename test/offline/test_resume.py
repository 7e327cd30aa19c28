"""Whatever stops a run, what was done stays, and going on gives the bytes of a run that was never
stopped."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flow3r_ros.cli.main import main
from flow3r_ros.errors import OutputError
from flow3r_ros.offline import resume, run
from flow3r_ros.offline.resume import load_state
from flow3r_ros.offline.run import run_to_folder
from flow3r_ros.paths import RESUME, OutputFolder, remove_leftovers
from test.odometry.oracle import Oracle
from test.offline.factory import clip_folder, small_clip, small_config

FRAMES = 40
SIGNALS = {"Ctrl-C": signal.SIGINT, "SIGTERM": signal.SIGTERM}
TIMED = ("summary.json", "report.html", "record.npz")
"""files that hold milliseconds"""


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return clip_folder(tmp_path_factory.mktemp("clip"), small_clip(FRAMES))


@pytest.fixture(scope="module")
def whole(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    return contents(go(clip, tmp_path_factory.mktemp("whole") / "out"))


def go(clip: Path, out: Path, resume: bool | None = None) -> Path:
    oracle = Oracle(small_clip(FRAMES))
    run_to_folder(
        clip, out, small_config(), lambda _: oracle, quiet=True, on_interrupt="keep",
        resume=resume, save_confidence=True,
    )  # fmt: skip
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in TIMED
    }


def at_frame(monkeypatch: pytest.MonkeyPatch, frame: int, do: Callable[[], None]) -> None:
    """Do something when the results of a frame are written, and checkpoints before every event."""
    add = run.RunFolder.add

    def adding(self: run.RunFolder, estimate: object) -> None:
        add(self, estimate)
        if estimate.frame_id == frame:
            monkeypatch.setattr(run.RunFolder, "add", add)
            do()

    monkeypatch.setattr(run.RunFolder, "add", adding)
    monkeypatch.setattr(resume, "PERIOD_S", 0.0)
    monkeypatch.setattr(resume, "SHARE", 1e9)


@pytest.mark.parametrize("name", SIGNALS)
def test_a_signal_leaves_a_marked_part_that_can_be_gone_on_with(
    clip: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
) -> None:
    out = tmp_path / "out"
    at_frame(monkeypatch, 21, lambda: os.kill(os.getpid(), SIGNALS[name]))
    go(clip, out)
    summary = json.loads((out / "summary.json").read_text())
    assert summary["partial"] == {"frames": 22, "reason": name}
    assert len(list((out / "depth").glob("*.png"))) == 22
    assert "interrupted after 22 frames" in (out / "report.html").read_text()
    with pytest.raises(OutputError, match="--resume"):
        go(clip, out)
    assert contents(go(clip, out, resume=True)) == whole
    assert "partial" not in json.loads((out / "summary.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    with pytest.raises(OutputError, match="exists already"):
        go(clip, out, resume=True)


def test_an_error_on_the_way_loses_nothing(
    clip: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say; other outputs beside it sweep their leftovers meanwhile."""

    def full() -> None:
        raise OSError(28, "No space left on device", str(out / "depth" / "000030.png"))

    out = tmp_path / "out"
    at_frame(monkeypatch, 30, full)
    with pytest.raises(OutputError, match="No space left"):
        go(clip, out)
    assert not out.exists()
    remove_leftovers(tmp_path)
    with pytest.raises(OutputError, match="an interrupted run is kept there"):
        OutputFolder(out).__enter__()
    assert contents(go(clip, out, resume=True)) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_restart_begins_anew(
    clip: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_frame(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    go(clip, tmp_path / "out")
    assert contents(go(clip, tmp_path / "out", resume=False)) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from test.offline import test_resume as here
patch = here.pytest.MonkeyPatch()
here.at_frame(patch, 25, lambda: os.kill(os.getpid(), signal.SIGKILL))
here.go(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_kill_9(clip: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(clip), str(tmp_path / "out")]
    assert subprocess.run(command, check=False, timeout=280).returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (left / RESUME / "state").stat().st_size > 10_000
    assert contents(go(clip, tmp_path / "out", resume=True)) == whole


def test_what_is_not_the_same_any_more_is_named(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_frame(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    go(clip, tmp_path / "out")
    known = json.loads((tmp_path / "out" / RESUME / "run.json").read_text())
    known["settings"]["engine"]["window"] = 7
    with pytest.raises(OutputError, match=r"another settings\.engine\.window;"):
        load_state(tmp_path / "out", known)


class Hostile:
    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch owned",)


def test_a_state_from_elsewhere_calls_nothing(tmp_path: Path) -> None:
    folder = tmp_path / RESUME
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"version": resume.__version__}))
    (folder / "state").write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(OutputError, match="it wants posix"):
        load_state(tmp_path, {})
    (folder / "state").write_bytes(b"\x80")
    with pytest.raises(OutputError, match="damaged"):
        load_state(tmp_path, {})


def test_the_command_keeps_by_default_and_says_so(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    oracle = Oracle(small_clip(FRAMES))
    monkeypatch.setattr("flow3r_ros.network.runner.open_predictor", lambda _: oracle)
    at_frame(monkeypatch, 5, lambda: os.kill(os.getpid(), signal.SIGINT))
    out = str(tmp_path / "out")
    command = ["flow3r", "run", str(clip), "-o", out, "-s", "tracking.depth_width=168"]
    for more, code, said in (([], 1, "repeat the command with --resume"), (["--resume"], 0, "")):
        monkeypatch.setattr("sys.argv", [*command, *more])
        with pytest.raises(SystemExit) as end:
            main()
        assert end.value.code == code
        assert said in capsys.readouterr().out
