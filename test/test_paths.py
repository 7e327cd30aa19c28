"""An output folder appears complete or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flow3r_ros.errors import OutputError
from flow3r_ros.paths import OutputFolder, remove_leftovers, write_atomically


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


HOLD = """
import sys, time
from pathlib import Path
from flow3r_ros.paths import OutputFolder
with OutputFolder(Path(sys.argv[1])) as folder:
    (folder.path / "half").write_text("x")
    print("ready", flush=True)
    time.sleep(600)
"""


@contextmanager
def writer(final: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process that works on the output."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(final)], stdout=subprocess.PIPE)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"ready\n"
        yield process
    finally:
        process.kill()
        process.communicate()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_second_writer_is_refused_and_the_first_one_not_disturbed(tmp_path: Path) -> None:
    with writer(tmp_path / "out"):
        before = names(tmp_path)
        with pytest.raises(OutputError, match="being written by another process"):
            OutputFolder(tmp_path / "out").__enter__()
        with OutputFolder(tmp_path / "other"):
            pass
        assert names(tmp_path) == sorted([*before, "other"])


def test_leftovers_of_a_killed_run_go_with_the_next_one_beside_it(tmp_path: Path) -> None:
    for following in ("out", "other"):
        with writer(tmp_path / "out") as process:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert len(names(tmp_path)) == 2
            with OutputFolder(tmp_path / following):
                pass
            assert names(tmp_path) == [following]
            (tmp_path / following).rmdir()


def test_a_name_can_be_reserved_before_the_work(tmp_path: Path) -> None:
    first = OutputFolder(tmp_path / "deep" / "out")
    with first.reserve():
        with pytest.raises(OutputError, match="being written"):
            OutputFolder(tmp_path / "deep" / "out").__enter__()
        with first as unfinished:
            (unfinished.path / "a").write_text("x")
    assert names(tmp_path / "deep") == ["out"]
    with pytest.raises(ZeroDivisionError), OutputFolder(tmp_path / "new" / "out").reserve():
        _ = 1 / 0
    assert names(tmp_path) == ["deep"]


def ours(folder: Path) -> str:
    return "" if (folder / "manifest").exists() else "is not ours"


def test_only_a_folder_of_ours_is_replaced(tmp_path: Path) -> None:
    final = tmp_path / "out"
    final.mkdir()
    (final / "thesis").write_text("x")
    with pytest.raises(OutputError, match="exists already and is not ours"):
        OutputFolder(final, ours).__enter__()
    (final / "manifest").write_text("")
    with pytest.raises(OutputError, match="exists already"):
        OutputFolder(final).__enter__()
    with OutputFolder(final, ours) as unfinished:
        (unfinished.path / "manifest").write_text("new")
    assert names(tmp_path) == ["out"]
    assert names(final) == ["manifest"]
    link = tmp_path / "link"
    link.symlink_to(final)
    with pytest.raises(OutputError, match="exists already"):
        OutputFolder(link, ours).__enter__()


def test_a_folder_that_changes_hands_during_the_work_stays(tmp_path: Path) -> None:
    final = tmp_path / "out"
    folder = OutputFolder(final, ours)
    folder.__enter__()
    final.mkdir()
    (final / "thesis").write_text("x")
    with pytest.raises(OutputError, match="is not ours"):
        folder.__exit__(None, None, None)
    assert names(tmp_path) == ["out"]
    assert names(final) == ["thesis"]


def test_killed_between_the_two_renames_of_a_replacement(tmp_path: Path) -> None:
    (tmp_path / ".out.flow3r-old").mkdir()
    (tmp_path / ".out.flow3r-old" / "manifest").write_text("old")
    remove_leftovers(tmp_path)
    assert names(tmp_path) == ["out"]
    assert (tmp_path / "out" / "manifest").read_text() == "old"


@pytest.mark.parametrize("hidden", [".out.flow3r-lock", ".out.flow3r-partial-{pid}"])
def test_links_laid_out_for_us_are_not_followed(tmp_path: Path, hidden: str) -> None:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "thesis").write_text("x")
    hidden = hidden.format(pid=os.getpid())
    (tmp_path / hidden).symlink_to(tmp_path / "victim")
    with pytest.raises(OutputError, match="cannot be written"):
        OutputFolder(tmp_path / "out").__enter__()
    assert names(tmp_path / "victim") == ["thesis"]


def test_what_is_written_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        with OutputFolder(tmp_path / "out") as unfinished:
            write_atomically(unfinished.path / "a", b"x")
    finally:
        os.umask(before)
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o750
    assert (tmp_path / "out" / "a").stat().st_mode & 0o777 == 0o640
