"""Batches made ahead of the training step, in threads: OpenCV releases the interpreter while it
decodes and resizes.

The loader measures how long the loop had to wait for data, so that a starving step is seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Generic, TypeVar

Made = TypeVar("Made")
AHEAD = 2
"""steps that are kept ready"""


class Loader(Generic[Made]):
    """Calls `make(step)` ahead of time; steps may start anywhere (resume) and are expected in
    order.

    Args:
        make: step -> samples or batch, a pure function.
        threads: makers at work; `AHEAD` steps are kept ready.

    `wait_s` is the time the last call waited.
    """

    def __init__(self, make: Callable[[int], Made], threads: int = 1) -> None:
        self._make = make
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
        self._futures: dict[int, Future[Made]] = {}
        self.wait_s = 0.0

    def __call__(self, step: int) -> Made:
        """What `make(step)` returns; the next steps are started. Errors of the data surface
        here."""
        for wanted in range(step, step + 1 + AHEAD):
            if wanted not in self._futures:
                self._futures[wanted] = self._pool.submit(self._make, wanted)
        started = time.perf_counter()
        made = self._futures.pop(step).result()
        self.wait_s = time.perf_counter() - started
        return made

    def __enter__(self) -> Loader[Made]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)
