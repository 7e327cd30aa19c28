"""How far a long job is: a bar on a terminal, a plain line every few seconds otherwise, nothing
when quiet.

Rate and time left are those of the last half minute, and count what is done: the first picture,
which waits for a model to load, and pictures that are read and still wait, make neither faster nor
slower.
"""

from __future__ import annotations

import logging
import sys
from collections import deque
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
)

from flow3r_ros.errors import printable

_log = logging.getLogger(__name__)
_LINE_PERIOD = 5.0
_SPAN = 30.0
"""seconds that the rate is measured over"""


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
        self._line = monotonic()
        self._seen: deque[tuple[float, int]] = deque()
        self._bar: Progress | None = None
        if not quiet and not self._plain:
            columns = (
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TaskProgressColumn(),
                TextColumn("{task.fields[rate]}"),
            )
            self._bar = Progress(*columns, console=Console(stderr=True))

    def __enter__(self) -> FrameProgress:
        if self._bar:
            self._bar.start()
            self._task = self._bar.add_task(escape(self.title), total=self.total, rate="")
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def step(self) -> None:
        """One more frame is done."""
        self.reach(self.done + 1)

    def reach(self, done: int) -> None:
        """So many frames are done, estimated or dropped."""
        if done <= self.done:
            return
        self.done = done
        now = monotonic()
        self._seen.append((now, done))
        while now - self._seen[0][0] > _SPAN and len(self._seen) > 2:
            self._seen.popleft()
        if self._bar:
            self._bar.update(self._task, completed=done, rate=self.rate())
        elif self._plain and now - self._line > _LINE_PERIOD:
            self._line = now
            of = f" of {self.total}" if self.total else ""
            _log.info("%s: %d%s frames, %s", self.title, done, of, self.rate())

    def rate(self) -> str:
        """Frames a second of late, and seconds left where the total is known; empty before two
        moments are known."""
        if len(self._seen) < 2:
            return ""
        (begin, first), (end, last) = self._seen[0], self._seen[-1]
        rate = (last - first) / max(end - begin, 1e-6)
        if not self.total:
            return f"{rate:.1f} frames/s"
        left = max(self.total - self.done, 0) / rate
        minutes = f"{left // 60:.0f} min " if left >= 60 else ""
        return f"{rate:.1f} frames/s, {minutes}{left % 60:.0f} s left"
