"""New frames on their way through the network, and the clock that goes with them."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from time import perf_counter

from flow3r_ros.odometry.assist import Memory, Track
from flow3r_ros.odometry.forward import Answer
from flow3r_ros.odometry.tracker import Motion
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Window


@dataclass(frozen=True)
class Clock:
    """`milliseconds` per stage."""

    milliseconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time spent inside to a stage."""
        start = perf_counter()
        try:
            yield
        finally:
            self.milliseconds[name] = self.milliseconds.get(name, 0.0) + 1e3 * (
                perf_counter() - start
            )


@dataclass(frozen=True)
class Start:
    """Where matching a frame starts: the assist's `memory` of the frame before, and the `motion`
    that predicts its pose."""

    memory: Memory
    motion: Motion


@dataclass(frozen=True)
class Batch:
    """New frames at the network.

    `views` and what correspondences say of each (`tracks`); the `window` sent and its `answer`; the
    `start` their matching began with; `onward`, the motion that predicts the frame after them where
    that one does not depend on the answer (None: it must wait); `frames_in` frames given to the
    engine so far.
    """

    views: list[View]
    tracks: list[Track | None]
    window: Window
    answer: Future[Answer]
    start: Start
    onward: Motion | None
    clock: Clock
    frames_in: int
