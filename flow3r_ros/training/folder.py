"""The folder of a training run belongs to one run at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from flow3r_ros.errors import OutputError
from flow3r_ros.network.catalog import why_kept
from flow3r_ros.paths import OutputFolder, locked


@contextmanager
def one_at_a_time(output: Path) -> Iterator[None]:
    """Nobody else trains into `output` meanwhile, and its model folder can be written at the end.

    Of several processes of one run (torchrun) the first holds the lock. Raises OutputError before
    any work is done.
    """
    OutputFolder(output / "model", why_kept).check()
    if int(os.environ.get("RANK", "0")):
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
                f"{output}: cannot be written ({error.strerror})",
                "free disk space or choose another --output",
            ) from error
        yield
