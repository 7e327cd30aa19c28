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
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline import resume
from flow3r_ros.offline.from_video import bag_from_video
from flow3r_ros.offline.replay import replay_bags
from flow3r_ros.offline.results import RunFolder
from flow3r_ros.offline.resume import load_state
from flow3r_ros.offline.run import run_to_folder
from flow3r_ros.paths import RESUME, OutputFolder, remove_leftovers
from test.cases.workshop import flow3r
from test.odometry.oracle import Oracle
from test.offline.factory import at_stop, clip_folder, contents, small_clip, small_config

FRAMES = 24
"""frames of the clip"""


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


def go_replay(bag: Path, out: Path, resume: bool | None = None) -> Path:
    oracle = Oracle(small_clip(FRAMES))
    replay_bags(
        [bag], out, small_config(), lambda _: oracle, quiet=True, on_interrupt="keep", resume=resume
    )
    return out


def fill_the_disk() -> None:
    raise OSError(28, "No space left on device")


def test_ctrl_c_leaves_a_marked_part_that_can_be_gone_on_with(
    clip: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """As typed."""
    out = tmp_path / "out"
    oracle = Oracle(small_clip(FRAMES))
    monkeypatch.setattr("flow3r_ros.network.runner.open_predictor", lambda _: oracle)

    def type_(*more: str) -> tuple[int, str]:
        command = f"flow3r run {clip} -o {out} --save-confidence -s tracking.depth_width=168"
        monkeypatch.setattr("sys.argv", [*command.split(), *more])
        with pytest.raises(SystemExit) as end:
            main()
        said = capsys.readouterr()
        return int(str(end.value.code)), said.out + said.err

    at_stop(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    code, said = type_()
    assert code == 1
    assert "interrupted after 15 frames: Ctrl-C\n         -> repeat the command with --r" in said
    summary = json.loads((out / "summary.json").read_text())
    assert summary["partial"] == {"frames": 15, "reason": "Ctrl-C"}
    assert len(list((out / "depth").glob("*.png"))) == 15
    assert "interrupted after 15 frames" in (out / "report.html").read_text()
    code, said = type_()
    assert (code, "go on with --resume" in said) == (1, True)
    code, said = type_("--resume", "-s", "engine.window=7")
    assert (code, "with another settings.engine.window;" in said) == (1, True)
    code, said = type_("--resume")
    assert code == 0, said
    assert contents(out) == whole
    assert "partial" not in json.loads((out / "summary.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    code, said = type_("--resume")
    assert (code, "exists already" in said) == (1, True)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_with_discard_an_interrupt_leaves_nothing(
    number: signal.Signals, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of run and of replay, as typed; the same command then begins anew."""
    oracle = Oracle(small_clip(FRAMES))
    monkeypatch.setattr("flow3r_ros.network.runner.open_predictor", lambda _: oracle)
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the suite is a job
    bag_from_video(clip, tmp_path / "bag")
    try:
        for command in (f"run {clip}", f"replay {tmp_path / 'bag'}"):
            typed = (*command.split(), "-o", tmp_path / "out", "--on-interrupt", "discard")
            with monkeypatch.context() as patch:
                at_stop(patch, lambda: os.kill(os.getpid(), number))
                done = flow3r(*typed)
            assert done.code == 130
            assert "flow3r: interrupted; nothing half-written was left" in done.err
            assert [path.name for path in tmp_path.iterdir()] == ["bag"]
        assert flow3r(*typed).code == 0
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_full_disk_loses_nothing(
    clip: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor do other outputs beside it, which sweep leftovers."""
    out = tmp_path / "out"
    at_stop(monkeypatch, fill_the_disk)
    with pytest.raises(OutputError, match="No space left"):
        go(clip, out)
    assert not out.exists()
    remove_leftovers(tmp_path)
    with pytest.raises(OutputError, match="an interrupted run is kept there"):
        OutputFolder(out).__enter__()
    assert contents(go(clip, out, resume=True)) == whole
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_a_disk_that_fills_while_the_state_is_written_leaves_the_one_before(
    clip: Path,
    whole: dict[str, bytes],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    write, states = resume.write_atomically, [0]

    def writing(path: Path, data: bytes) -> None:
        states[0] += path.name == "state"
        if states[0] == 2:
            raise OutputError(f"{path}: the disk is full")
        write(path, data)

    monkeypatch.setattr(resume, "write_atomically", writing)
    at_stop(monkeypatch, lambda: None)
    with pytest.raises(OutputError, match="the disk is full"):
        go(clip, tmp_path / "out")
    assert "repeat the command with --resume" in caplog.text
    monkeypatch.setattr(resume, "write_atomically", write)
    assert contents(go(clip, tmp_path / "out", resume=True)) == whole


def test_restart_begins_anew(
    clip: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_stop(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGTERM))
    go(clip, tmp_path / "out")
    assert contents(go(clip, tmp_path / "out", resume=False)) == whole


KILLED = """
import os, signal, sys
from pathlib import Path
from test.offline import test_resume as here
here.at_stop(here.pytest.MonkeyPatch(), lambda: os.kill(os.getpid(), signal.SIGKILL))
here.go(Path(sys.argv[1]), Path(sys.argv[2]))
"""


def test_kill_9(clip: Path, whole: dict[str, bytes], tmp_path: Path) -> None:
    command = [sys.executable, "-c", KILLED, str(clip), str(tmp_path / "out")]
    assert subprocess.run(command, check=False, timeout=280).returncode == -signal.SIGKILL
    (left,) = (path for path in tmp_path.iterdir() if path.is_dir())
    assert (left / RESUME / "state").stat().st_size > 10_000
    assert contents(go(clip, tmp_path / "out", resume=True)) == whole


def test_a_replay_goes_on_to_the_same_bag(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From an unfinished mcap as from the finished part."""
    bag = tmp_path / "in"
    bag_from_video(clip, bag, quiet=True)
    whole = go_replay(bag, tmp_path / "whole" / "out")
    torn, part = tmp_path / "torn" / "out", tmp_path / "part" / "out"
    at_stop(monkeypatch, fill_the_disk)
    with pytest.raises(OutputError, match="No space left"):
        go_replay(bag, torn)
    at_stop(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    go_replay(bag, part)
    summary = json.loads((part / "summary.json").read_text())
    assert summary["partial"] == {"frames": 15, "reason": "Ctrl-C"}
    for out in (torn, part):
        assert contents(go_replay(bag, out, resume=True)) == contents(whole)


def test_a_state_that_cannot_be_kept_costs_nothing_else(
    clip: Path, whole: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: Engine) -> None:
        raise TypeError("cannot pickle this")

    monkeypatch.setattr(Engine, "snapshot", fails)
    at_stop(monkeypatch, lambda: None)
    assert contents(go(clip, tmp_path / "whole")) == whole
    at_stop(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    part = go(clip, tmp_path / "part")
    assert json.loads((part / "summary.json").read_text())["partial"]["frames"] == 15
    assert not (part / RESUME).exists()


class Hostile:
    def __init__(self, call: Callable[..., object], *arguments: object) -> None:
        self._reduced = call, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._reduced


def test_a_state_from_elsewhere_calls_nothing(tmp_path: Path) -> None:
    folder = tmp_path / RESUME
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"version": resume.__version__}))
    (folder / "state").write_bytes(pickle.dumps(Hostile(os.system, "touch owned")))
    with pytest.raises(OutputError, match="it wants posix"):
        load_state(tmp_path, {})
    writes = Hostile(RunFolder, tmp_path / "owned", None)
    (folder / "state").write_bytes(pickle.dumps(writes))
    with pytest.raises(OutputError, match=r"it wants flow3r_ros\.offline\.results"):
        load_state(tmp_path, {})
    assert not (tmp_path / "owned").exists()
    (folder / "state").write_bytes(b"\x80")
    with pytest.raises(OutputError, match="damaged"):
        load_state(tmp_path, {})
