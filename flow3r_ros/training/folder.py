"""The folder of a training run belongs to one run at a time; in object storage it is made here and
copied there whenever a checkpoint is complete."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flow3r_ros.errors import OutputError, StorageError, cause_of
from flow3r_ros.network.catalog import why_kept
from flow3r_ros.paths import OutputFolder, locked
from flow3r_ros.storage import Location, RemotePath

_NOT_FETCHED = ("labels/", "model/", "tensorboard/")
"""what a resumed run does not read"""


class RunFolder:
    """Where a run writes: `path`, here. `keep` copies what is new to storage, where that is its
    real place."""

    def __init__(self, path: Path, final: Location) -> None:
        self.path, self.final = path, final
        self._kept: dict[str, tuple[int, int]] = {}

    def keep(self) -> None:
        """Make storage the same as this folder: optimizer before weights and the manifest of a
        model last, so what is half there does not count. Raises StorageError saying where the run
        is kept meanwhile."""
        if not isinstance(self.final, RemotePath) or _rank():
            return
        try:
            here = self._here()
            for name in sorted(here, key=lambda name: (name.endswith("manifest.yaml"), name)):
                if self._kept.get(name) != here[name]:
                    (self.final / name).upload(self.path / name)
                    self._kept[name] = here[name]
            for name in self._kept.keys() - here.keys():
                (self.final / name).unlink(missing_ok=True)
                del self._kept[name]
        except StorageError as error:
            raise StorageError(
                error.what,
                f"the run is kept in {self.path}: copy it there, or resume with that as --output",
            ) from error

    def fetch(self) -> None:
        """Get what a resumed run needs from storage."""
        assert isinstance(self.final, RemotePath)
        for name in self.final.listing():
            if not name.startswith(_NOT_FETCHED):
                (self.path / name).parent.mkdir(parents=True, exist_ok=True)
                (self.final / name).download(self.path / name)
        self._kept = self._here()

    def _here(self) -> dict[str, tuple[int, int]]:
        files = [path for path in self.path.rglob("*") if path.is_file()]
        return {
            str(path.relative_to(self.path)): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in files
            if not path.name.startswith(".")
        }


@contextmanager
def run_folder(output: Location, resume: bool = False) -> Iterator[RunFolder]:
    """The folder of a run on `output`, with what an earlier run left where it is to `resume`.

    Nobody else trains into a local one meanwhile, and its model folder can be written at the end;
    in storage nothing keeps two runs apart. Raises OutputError before any work is done, and
    StorageError.
    """
    if isinstance(output, Path):
        with _one_at_a_time(output):
            yield RunFolder(output, output)
        return
    if not resume and (output / "checkpoints").exists():
        raise OutputError(
            f"{output} already holds a training run",
            "resume it with --resume or choose another --output",
        )
    folder = RunFolder(Path(tempfile.mkdtemp(prefix="flow3r_train_")), output)
    try:
        if resume:
            folder.fetch()
        try:
            yield folder
        finally:
            folder.keep()
    except StorageError:
        if not any(folder.path.rglob("step_*.safetensors")):
            shutil.rmtree(folder.path, ignore_errors=True)
        raise
    except BaseException:
        shutil.rmtree(folder.path, ignore_errors=True)
        raise
    shutil.rmtree(folder.path, ignore_errors=True)


@contextmanager
def _one_at_a_time(output: Path) -> Iterator[None]:
    """Hold the lock of a local run; of several processes of one run (torchrun) the first does."""
    OutputFolder(output / "model", why_kept).check()
    if _rank():
        yield
        return
    with ExitStack() as stack:
        try:
            output.mkdir(parents=True, exist_ok=True)
            stack.enter_context(locked(output / ".training.lock"))
        except BlockingIOError as error:
            raise OutputError(
                f"{output}: another process is training into it",
                "wait for it or choose another --output",
            ) from error
        except OSError as error:
            raise OutputError(
                f"{output}: cannot be written ({cause_of(error)})",
                "free disk space or choose another --output",
            ) from error
        yield


def _rank() -> int:
    return int(os.environ.get("RANK", "0"))
