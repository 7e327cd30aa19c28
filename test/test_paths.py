"""An output folder appears complete or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from flow3r_ros.errors import OutputError
from flow3r_ros.paths import OutputFolder


def test_complete_folder_takes_its_name(tmp_path: Path) -> None:
    final = tmp_path / "deep" / "out"
    with OutputFolder(final) as unfinished:
        (unfinished.path / "a").write_text("x")
        assert not final.exists()
    assert [path.name for path in final.parent.iterdir()] == ["out"]
    assert (final / "a").read_text() == "x"


def write_and_fail(final: Path, error: BaseException) -> None:
    with OutputFolder(final) as unfinished:
        (unfinished.path / "a").write_text("x")
        raise error


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")],
)
def test_nothing_stays_after_an_error(tmp_path: Path, error: BaseException) -> None:
    expected = OutputError if isinstance(error, OSError) else type(error)
    with pytest.raises(expected):
        write_and_fail(tmp_path / "out", error)
    assert not list(tmp_path.iterdir())


def test_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"), OutputFolder(tmp_path / "out"):
        pass
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError), OutputFolder(tmp_path / "file" / "out"):
        pass


def test_leftovers_of_a_killed_run_go_and_those_of_a_living_one_stay(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from flow3r_ros.paths import OutputFolder\n"
        f"with OutputFolder(Path({str(tmp_path / 'out')!r})) as folder:\n"
        "    (folder.path / 'half').write_text('x'); print('ready', flush=True); time.sleep(60)\n"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"ready\n"
    with OutputFolder(tmp_path / "out"):
        assert len(list(tmp_path.iterdir())) == 2
    (tmp_path / "out").rmdir()
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    time.sleep(0.05)
    assert len(list(tmp_path.iterdir())) == 1
    with OutputFolder(tmp_path / "out"):
        pass
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
