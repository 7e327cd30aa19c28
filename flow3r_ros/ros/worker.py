"""The inference thread of the node: the latest image, or after a long step a few, wait in front of
the engine; every received image is accounted for.

Callbacks put images there as they came and return at once; one thread decodes those that it
takes, steps the engine and hands the estimates on. Whatever else must touch the engine (reset, a
snapshot of the map) runs in that same thread between two steps, so it never races inference.
"""

from __future__ import annotations

import math
import threading
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Protocol, TypeVar

from flow3r_ros.errors import FrameError
from flow3r_ros.ros.pace import Pace
from flow3r_ros.types import Estimate, Frame, Segment

T = TypeVar("T")
REMEMBERED_FRAMES = 512
"""receive times kept for frames whose estimate is still to come"""


class Odometer(Protocol):
    """What the worker needs of `odometry.Engine`."""

    drops: Counter[str]

    @property
    def segments(self) -> Sequence[Segment]:
        """Segments of the trajectory so far."""
        ...

    def step(self, frame: Frame, depth: bool = True) -> list[Estimate]:
        """Take one frame, with its depth or without; return what became known."""
        ...

    def reset(self) -> None:
        """Forget everything."""
        ...


@dataclass
class Tally:
    """What became of the images since start or reset."""

    received: int = 0
    estimated: int = 0
    drops: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True)
class Outcome:
    """One estimate on its way out.

    `latency_ms` from reception to estimate, `engine_ms` of it in the engine's step; `received_at`
    is `time.monotonic()` at reception; `tally` the counts at this moment.
    """

    estimate: Estimate
    latency_ms: float
    engine_ms: float
    received_at: float
    tally: Tally


@dataclass(frozen=True)
class _Image:
    """An image that waits: `decode` makes its frame, given `frame_id`; `epoch` counts resets."""

    decode: Callable[[int], Frame]
    frame_id: int
    received_at: float
    epoch: int


class Worker:
    """Steps an engine in a thread of its own.

    Args:
        engine: owned by the thread from here on.
        deliver: called in the inference thread with every outcome; must not block.
        complain: called with (key, text) about a frame that failed, and with `segment` and the
            reason before the first outcome of a new segment.
        most: images a second to estimate at most, 0: all that the engine can take; asked at every
            image.
        depth: whether anybody wants depth; asked at every image.
    """

    def __init__(
        self,
        engine: Odometer,
        deliver: Callable[[Outcome], None],
        complain: Callable[[str, str], None],
        most: Callable[[], float] = lambda: 0.0,
        depth: Callable[[], bool] = lambda: True,
    ) -> None:
        self._engine = engine
        self._deliver = deliver
        self._complain = complain
        self._pace = Pace(most)
        self._depth = depth
        self._wake = threading.Condition()
        self._waiting: deque[_Image] = deque()
        self._taken_at = -math.inf
        self._jobs: deque[Callable[[], None]] = deque()
        self._received_at: OrderedDict[int, float] = OrderedDict()
        self._tally = Tally()
        self._next_id = self._segment = 0
        self._epoch = 0
        self._running = True
        self._thread = threading.Thread(target=self._run, name="flow3r_inference", daemon=True)
        self._thread.start()

    def put(self, decode: Callable[[int], Frame], received_at: float) -> None:
        """Count an image as received and leave it for the next step; an older one still waiting is
        dropped (`busy`, or `idle` where fewer images are wanted) unless `Pace` keeps it.

        `decode` is called in the inference thread if the image is taken; it gets the frame's id,
        unique for the life of this worker, and may raise FrameError, which counts the image as
        dropped under that reason. `received_at` is `time.monotonic()` at reception.
        """
        with self._wake:
            self._pace.arrived(received_at)
            self._tally.received += 1
            if self._waiting:
                count, newest = len(self._waiting), self._waiting[-1].received_at
                before = self._waiting[-2].received_at if count > 1 else self._taken_at
                if not self._pace.keeps(newest, before, count):
                    self._waiting.pop()
                    self._tally.drops["idle" if self._pace.idle else "busy"] += 1
            self._waiting.append(_Image(decode, self._next_id, received_at, self._epoch))
            self._next_id += 1
            self._wake.notify()

    def post(self, job: Callable[[], T]) -> Future[T]:
        """Run `job` in the inference thread between two steps, without waiting for it; the future
        carries its result or exception."""
        future: Future[T] = Future()

        def run() -> None:
            try:
                future.set_result(job())
            except Exception as error:
                future.set_exception(error)

        with self._wake:
            self._jobs.append(run)
            self._wake.notify()
        return future

    def reset(self) -> None:
        """Forget the images that wait, the engine's state and the tally; only from a job that was
        posted."""
        with self._wake:
            self._epoch += 1
            self._waiting.clear()
            self._received_at.clear()
            self._tally = Tally()
        self._segment = 0
        self._engine.reset()

    def tally(self) -> Tally:
        """A copy of the counts, the engine's own drops included."""
        with self._wake:
            drops = self._tally.drops + self._engine.drops
            return Tally(self._tally.received, self._tally.estimated, drops)

    def stop(self, timeout: float) -> bool:
        """End the thread after the step in progress; False if it did not end within `timeout`
        seconds."""
        with self._wake:
            self._running = False
            self._wake.notify()
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while True:
            todo = self._next()
            if todo is None:
                return
            if isinstance(todo, _Image):
                self._step(todo)
            else:
                todo()

    def _next(self) -> Callable[[], None] | _Image | None:
        """Wait for a job, or for an image whose time has come; None at the end."""
        with self._wake:
            while self._running:
                if self._jobs:
                    return self._jobs.popleft()
                wait = None
                if self._waiting:
                    image = self._waiting[0]
                    wait = self._pace.wait(image.received_at, time.monotonic())
                    if not wait or len(self._waiting) > 1:
                        self._taken_at = image.received_at
                        return self._waiting.popleft()
                self._wake.wait(wait)
        return None

    def _step(self, image: _Image) -> None:
        start = time.monotonic()
        try:
            frame = image.decode(image.frame_id)
            self._remember(image)
            estimates = self._engine.step(frame, self._depth())
        except FrameError as error:
            self._count_drop(error.reason, str(error), image.epoch)
            return
        except Exception as error:
            self._count_drop("engine_error", f"{type(error).__name__}: {error}", image.epoch)
            return
        finally:
            with self._wake:
                self._pace.stepped(image.received_at, time.monotonic() - start)
        now = time.monotonic()
        with self._wake:
            self._tally.estimated += len(estimates)
        for estimate in estimates:
            received_at = self._received_at.pop(estimate.frame_id, now)
            if estimate.segment != self._segment:
                self._segment = estimate.segment
                self._complain("segment", self._engine.segments[estimate.segment].reason)
            self._deliver(
                Outcome(
                    estimate,
                    (now - received_at) * 1e3,
                    (now - start) * 1e3,
                    received_at,
                    self.tally(),
                )
            )

    def _remember(self, image: _Image) -> None:
        """Keep when an image was received until its estimate is there."""
        self._received_at[image.frame_id] = image.received_at
        while len(self._received_at) > REMEMBERED_FRAMES:
            self._received_at.popitem(last=False)

    def _count_drop(self, reason: str, text: str, epoch: int) -> None:
        with self._wake:
            if epoch == self._epoch:
                self._tally.drops[reason] += 1
        self._complain(reason, text)
