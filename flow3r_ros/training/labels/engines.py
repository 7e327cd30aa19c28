"""Who does the tasks of a labelling run: this process, or a pool of processes of this machine;
`ray_engine` has the third, a cluster."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import connection, get_context, parent_process
from typing import Protocol

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.labels.worker import Order, Result, Task, work

IN_FLIGHT_PER_WORKER = 2
"""tasks handed out ahead per worker: keeps workers busy and memory bounded"""
MAX_POOL_RESTARTS = 5
Done = tuple[str, Result]
"""the node that did a task, and what came of it"""


class Engine(Protocol):
    """Takes tasks and gives results back in any order."""

    def capacity(self) -> int:
        """How many tasks may be under way now; a cluster grows and shrinks."""
        ...

    def submit(self, task: Task) -> None:
        """Hand out a task."""
        ...

    def finished(self) -> Iterator[Done]:
        """What is finished, at least one; nothing when nothing is under way. Raises what the task
        raised, TrainingError when workers keep dying."""
        ...


class Alone:
    """This process, one task at a time."""

    def __init__(self, order: Order) -> None:
        self._order, self._tasks = order, list[Task]()

    def capacity(self) -> int:
        """See `Engine`."""
        return 1

    def submit(self, task: Task) -> None:
        """See `Engine`."""
        self._tasks.append(task)

    def finished(self) -> Iterator[Done]:
        """See `Engine`."""
        while self._tasks:
            yield socket.gethostname(), work(self._order, self._tasks.pop())


class Pool:
    """Processes of this machine; when one is killed the pool is renewed and what was unfinished is
    done again. A context manager."""

    def __init__(self, order: Order, workers: int) -> None:
        self._order, self._workers, self._restarts = order, workers, 0
        self._running: dict[Future[Result], Task] = {}
        self._pool = self._open()

    def __enter__(self) -> Pool:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.shutdown(wait=True, cancel_futures=True)

    def capacity(self) -> int:
        """See `Engine`."""
        return self._workers * IN_FLIGHT_PER_WORKER

    def submit(self, task: Task) -> None:
        """See `Engine`."""
        try:
            self._running[self._pool.submit(work, self._order, task)] = task
        except BrokenProcessPool:
            self._renew([task])

    def finished(self) -> Iterator[Done]:
        """See `Engine`."""
        try:
            for future in wait(self._running, return_when=FIRST_COMPLETED).done:
                result = future.result()
                del self._running[future]
                yield socket.gethostname(), result
        except BrokenProcessPool:
            self._renew([])

    def _open(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(self._workers, get_context("spawn"), end_with_parent)

    def _renew(self, more: list[Task]) -> None:
        self._restarts += 1
        if self._restarts == MAX_POOL_RESTARTS:
            raise TrainingError(
                "label workers keep being killed",
                "use fewer workers, or a machine with more memory",
            )
        self._pool.shutdown(wait=True)
        unfinished, self._running = [*self._running.values(), *more], {}
        self._pool = self._open()
        for task in unfinished:
            self.submit(task)


def end_with_parent() -> None:
    """Make this worker process end at once when the one that started it does, however that died:
    without it, workers of a killed parent wait for tasks forever."""
    parent = parent_process()
    if parent is None:
        return

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
