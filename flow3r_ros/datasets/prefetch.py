"""Reads ahead in a thread, through a bounded queue, so that decoding runs beside the network and
memory stays flat."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from time import perf_counter
from typing import Generic, TypeVar

T = TypeVar("T")
DEPTH = 4
"""items decoded ahead"""


class _End:
    """End of the items, or the error that ended them."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class Prefetch(Generic[T]):
    """Iterates over `items`, taken from another thread; an error there is raised here, in its
    place.

    `busy_s` is the time the thread spent producing, without waiting for the consumer.
    """

    def __init__(self, items: Iterator[T], depth: int = DEPTH) -> None:
        self.busy_s = 0.0
        self._items = items
        self._queue: queue.Queue[T | _End] = queue.Queue(depth)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._produce, name="read ahead", daemon=True)

    def __enter__(self) -> Prefetch[T]:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[T]:
        while True:
            item = self._queue.get()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item

    def close(self) -> None:
        """Stop the thread and wait for it; safe to call twice."""
        self._stop.set()
        while self._thread.is_alive():
            try:
                self._queue.get_nowait()
            except queue.Empty:
                self._thread.join(0.01)

    def _produce(self) -> None:
        error: BaseException | None = None
        try:
            while not self._stop.is_set():
                begin = perf_counter()
                item = next(self._items, self)
                self.busy_s += perf_counter() - begin
                if item is self:
                    break
                self._put(item)  # type: ignore[arg-type]
        except BaseException as caught:
            error = caught
        self._put(_End(error))

    def _put(self, item: T | _End) -> None:
        while not self._stop.is_set():
            try:
                self._queue.put(item, timeout=0.1)
            except queue.Full:
                continue
            return
