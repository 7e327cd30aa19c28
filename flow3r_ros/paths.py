"""Where installed files are found, and how a folder or file appears: complete or not at all,
whatever happens in between (errors, Ctrl-C, a full disk, kill -9), and one writer at a time.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from flow3r_ros.errors import OutputError, cause_of

PACKAGE = Path(__file__).resolve().parent
"""folder of the Python package"""

RESUME = "flow3r_resume"
"""folder inside work that can be gone on with, and what that takes; such work is never swept"""
_LEFTOVER = re.compile(r"\.(?P<name>.+)\.flow3r-(?:partial-\d+|old|lock)", re.DOTALL)
"""hidden siblings of an output: work under way, the folder being replaced, the lock"""


def shared_files(name: str) -> list[Path]:
    """Existing files or folders `name` (`msg`, `config/node.yaml`, `models`): beside the package in
    a checkout, then below `share/flow3r_ros` of every install prefix (AMENT_PREFIX_PATH, the
    environment's own)."""
    prefixes = [*os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep), sys.prefix]
    shares = [Path(prefix) / "share" / "flow3r_ros" for prefix in prefixes if prefix]
    return [
        path
        for path in (root / name for root in dict.fromkeys([PACKAGE.parent, *shares]))
        if path.exists()
    ]


def natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sort key of a file's name that puts `part_2` before `part_10`."""
    return [
        (0, int(piece), "") if piece.isdecimal() else (1, 0, piece)
        for piece in re.split(r"(\d+)", path.name)
    ]


@contextmanager
def locked(path: Path, wait: bool = False) -> Iterator[bool]:
    """Hold the lock file `path`, which vanishes at the end; the lock dies with this process.

    Yields whether it is really held: False on a file system without locks. Raises BlockingIOError
    when another holder has it and `wait` is off, OSError when the file cannot be made.
    """
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            held = True
        except BlockingIOError:
            os.close(handle)
            raise
        except OSError:
            held = False
        try:
            same = os.path.samestat(os.stat(path), os.fstat(handle))
        except FileNotFoundError:
            same = False
        if same:
            break
        os.close(handle)  # its last holder removed it between our open and our lock
    try:
        yield held
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


class OutputFolder:
    """Work in `.path`, a hidden sibling, which takes the final name when the `with` block ends well
    and vanishes when it does not.

    A lock is held from the start of the block, or earlier with `reserve`: a second writer of the
    same folder is refused before it works. Leftovers of killed writers are removed by the next one
    beside them. Raises OutputError when the final name is taken or being written, or cannot be
    written, also for a full disk inside the block.

    Work that holds a folder `RESUME` outlives errors and killed writers: under its hidden name, or
    under the final one where it was finished as a part. `interrupted` is where it lies.

    Args:
        final: the folder to make.
        keep: asked about a real folder that stands there already: empty when it is ours to
            replace, else why it stays. Without it nothing is ever replaced. A link never is.
        resume: what becomes of interrupted work: True goes on in it, False replaces it, None
            refuses to write.
    """

    def __init__(
        self,
        final: Path,
        keep: Callable[[Path], str] | None = None,
        resume: bool | None = None,
    ) -> None:
        self.final = final.absolute()
        self._keep = keep
        self._resume = resume
        self._reserved = False
        self._stack = ExitStack()
        self.path = _beside(self.final, f"partial-{os.getpid()}")

    def check(self) -> None:
        """OutputError when the final name is taken: worth asking before long work starts."""
        if self.final.name in ("", ".."):
            raise OutputError(f"{self.final} is no name for a folder", "choose another --output")
        if not os.path.lexists(self.final):
            return
        if is_interrupted(self.final):
            self._refuse_interrupted()
            return
        reason = ""
        if self._keep is not None and self.final.is_dir() and not self.final.is_symlink():
            reason = self._keep(self.final)
            if not reason:
                return
        raise OutputError(
            f"{self.final} exists already{f' and {reason}' if reason else ''}",
            "choose another --output or --name, or move it away",
        )

    @property
    def interrupted(self) -> Path | None:
        """The folder of interrupted work on this output: the hidden one of a killed writer, else
        the final one where it holds a part; None when there is none."""
        return next(filter(is_interrupted, (*_partials(self.final), self.final)), None)

    @contextmanager
    def reserve(self) -> Iterator[None]:
        """Hold the name from here on, for work that has to come before the block."""
        if self._reserved:
            yield
            return
        self.check()
        with ExitStack() as stack:
            try:
                made = _make_folders(self.final.parent)
                stack.callback(_remove_empty, made)
                held = stack.enter_context(locked(_beside(self.final, "lock")))
            except BlockingIOError as error:
                raise OutputError(
                    f"{self.final} is being written by another process",
                    "wait for it or choose another --output",
                ) from error
            except OSError as error:
                raise self._cannot(error) from error
            if held:
                _clear(self.final)
                remove_leftovers(self.final.parent)
            self.check()
            if self.interrupted is not None:
                self._refuse_interrupted()
            self._reserved = True
            try:
                yield
            finally:
                self._reserved = False

    def __enter__(self) -> OutputFolder:
        with ExitStack() as stack:
            stack.enter_context(self.reserve())
            try:
                found = self.interrupted
                if self._resume and found is not None:
                    found.rename(self.path)
                else:
                    for path in (self.path, *_partials(self.final)):
                        shutil.rmtree(path, ignore_errors=True)
                    self.path.mkdir()
            except OSError as error:
                raise self._cannot(error) from error
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        with self._stack:
            try:
                if kind is None:
                    self.check()
                    self._take_name()
                    return
            except OSError as failed:
                error = failed
            finally:
                if not is_interrupted(self.path):
                    shutil.rmtree(self.path, ignore_errors=True)
            if isinstance(error, OSError):
                raise self._cannot(error) from error

    def _refuse_interrupted(self) -> None:
        if self._resume is None:
            raise OutputError(
                f"{self.final}: an interrupted run is kept there",
                "go on with --resume, begin anew with --restart, or choose another --output",
            )

    def _take_name(self) -> None:
        if not self.final.exists():
            self.path.rename(self.final)
            return
        old = _beside(self.final, "old")
        self.final.rename(old)
        try:
            self.path.rename(self.final)
        except OSError:
            old.rename(self.final)
            raise
        shutil.rmtree(old, ignore_errors=True)

    def _cannot(self, error: OSError) -> OutputError:
        """The error to raise: about the output, unless it names a file elsewhere."""
        named = str(error.filename or "")
        mine = (str(self.final), str(_beside(self.final, "")))
        ours = not named or named.startswith(mine) or self.final.is_relative_to(named)
        cure = "check the path, permissions and free space"
        if ours or error.errno in (errno.ENOSPC, errno.EDQUOT):
            return OutputError(f"{self.final}: cannot be written ({cause_of(error)})", cure)
        return OutputError(f"{named}: {cause_of(error)}", cure)


def as_folder(output: Path | OutputFolder) -> OutputFolder:
    """The output folder of a path, or the one reserved already."""
    return output if isinstance(output, OutputFolder) else OutputFolder(output)


def remove_leftovers(folder: Path) -> None:
    """Clear what killed writers left in `folder`: unfinished outputs and locks go, a folder that
    was being replaced gets its name back. What a living process works on stays."""
    with suppress(OSError):
        found = (_LEFTOVER.fullmatch(path.name) for path in folder.glob(".*.flow3r-*"))
        for name in {match["name"] for match in found if match}:
            final = folder / name
            with suppress(OSError), locked(_beside(final, "lock")) as held:
                if held:
                    _clear(final)


def write_atomically(path: Path, data: bytes) -> None:
    """Write bytes so that `path` holds either the old or the whole new content, also after a crash,
    readable as the umask allows.

    Raises OutputError when the disk is full or the folder cannot be written; the partial file is
    removed.
    """
    partial = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        partial.unlink(missing_ok=True)
        with partial.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except OSError as error:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise OutputError(
            f"{path}: {'the disk is full' if full else f'cannot be written ({cause_of(error)})'}",
            "free some space and run again: what is finished is kept"
            if full
            else "check the folder and its permissions",
        ) from error


@contextmanager
def readable(path: Path) -> Iterator[None]:
    """Give the file `path`, which the block writes, the mode that the umask gives new files:
    safetensors makes its own readable by the owner alone."""
    path.touch()
    mode = path.stat().st_mode & 0o777
    yield
    path.chmod(mode)


def _beside(final: Path, what: str) -> Path:
    return final.parent / f".{final.name}.flow3r-{what}"


def _clear(final: Path) -> None:
    """Leftovers of one output whose lock is held."""
    old = _beside(final, "old")
    if old.is_dir() and not old.is_symlink():
        if os.path.lexists(final):
            shutil.rmtree(old, ignore_errors=True)
        else:
            old.rename(final)
    for path in _partials(final):
        if not path.is_symlink() and not is_interrupted(path):
            shutil.rmtree(path, ignore_errors=True)


def is_interrupted(folder: Path) -> bool:
    """Whether a folder, no link, is work of ours that can be gone on with."""
    return not folder.is_symlink() and (folder / RESUME / "run.json").is_file()


def _partials(final: Path) -> list[Path]:
    """Hidden folders of work on an output, this process's too."""
    prefix = f".{final.name}.flow3r-partial-"
    if not final.parent.is_dir():
        return []
    return sorted(path for path in final.parent.iterdir() if path.name.startswith(prefix))


def _make_folders(folder: Path) -> list[Path]:
    """Make `folder` and those above it; the new ones, innermost first."""
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    return made


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()
