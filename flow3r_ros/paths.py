"""Where installed files are found, and how a folder appears: complete or not at all, whatever
happens in between (errors, Ctrl-C, a full disk, kill -9).
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from pathlib import Path

from flow3r_ros.errors import OutputError

PACKAGE = Path(__file__).resolve().parent
"""folder of the Python package"""


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


class OutputFolder:
    """Work in `.path`, a hidden sibling, which takes the final name when the `with` block ends well
    and vanishes when it does not.

    Leftovers of killed processes are removed when the same output is asked for again. Raises
    OutputError when the final name exists or cannot be written, also for a full disk inside the
    block.
    """

    def __init__(self, final: Path) -> None:
        self.final = final.absolute()
        self.path = self.final.parent / f".{self.final.name}.partial-{os.getpid()}"

    def check(self) -> None:
        """OutputError when the final name is taken: worth asking before the long work starts."""
        if self.final.exists() or self.final.is_symlink():
            raise OutputError(
                f"{self.final} exists already", "choose another --output or remove it"
            )

    def __enter__(self) -> OutputFolder:
        self.check()
        try:
            self.final.parent.mkdir(parents=True, exist_ok=True)
            self._remove_leftovers()
            self.path.mkdir()
        except OSError as error:
            raise OutputError(
                f"{self.final}: cannot be written ({error.strerror})",
                "check the path, permissions and free space",
            ) from error
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: object
    ) -> None:
        try:
            if kind is None:
                self.path.rename(self.final)
                return
        except OSError as failed:
            error = failed
        shutil.rmtree(self.path, ignore_errors=True)
        if isinstance(error, OSError):
            raise OutputError(
                f"{self.final}: cannot be written ({error.strerror or error})",
                "check free space and permissions",
            ) from error

    def _remove_leftovers(self) -> None:
        for folder in self.final.parent.glob(f".{self.final.name}.partial-*"):
            pid = folder.name.rpartition("-")[2]
            if pid.isdigit() and (int(pid) == os.getpid() or not _alive(int(pid))):
                shutil.rmtree(folder, ignore_errors=True)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True
