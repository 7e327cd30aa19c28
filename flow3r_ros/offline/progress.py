"""How far a long job is: a bar on a terminal, a plain line every few seconds otherwise, nothing
when quiet."""

from __future__ import annotations

import logging
import sys
from time import monotonic

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from flow3r_ros.errors import printable

_log = logging.getLogger(__name__)
_LINE_PERIOD = 5.0


class FrameProgress:
    """Counts frames of `title`; a context manager.

    Args:
        total: frames to expect; None when unknown.
        quiet: show nothing.
    """

    def __init__(self, title: str, total: int | None, quiet: bool = False) -> None:
        self.title = printable(title)
        self.total = total
        self.done = 0
        self._plain = not quiet and not sys.stderr.isatty()
        self._begin = self._line = monotonic()
        self._bar: Progress | None = None
        if not quiet and not self._plain:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TaskProgressColumn(),
            )
            self._bar = Progress(
                *columns,
                TextColumn("{task.fields[fps]}"),
                TimeRemainingColumn(),
                console=Console(stderr=True),
            )

    def __enter__(self) -> FrameProgress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(escape(self.title), total=self.total, fps="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self) -> None:
        """One more frame went through."""
        self.done += 1
        now = monotonic()
        fps = self.done / max(now - self._begin, 1e-6)
        if self._bar:
            self._bar.update(self._task, advance=1, fps=f"{fps:.1f} frames/s")
        elif self._plain and now - self._line > _LINE_PERIOD:
            self._line = now
            left = f", {max(self.total - self.done, 0) / fps:.0f} s left" if self.total else ""
            _log.info(
                "%s: %d%s frames, %.1f frames/s%s",
                self.title,
                self.done,
                f" of {self.total}" if self.total else "",
                fps,
                left,
            )
