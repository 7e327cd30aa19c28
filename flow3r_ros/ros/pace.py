"""Which of the images that arrive are taken, so that those taken lie evenly apart in time.

An engine whose step takes 2.4 periods of the camera takes every second or third image, at the rate
that it can keep, instead of whichever is there when it is free: the motion between two of them is
as small as it can be, and each is fresh. A node that nobody listens to takes a few a second.

What counts is the usual step. The odd long one, which takes a keyframe in, costs the same however
many images are taken, and to take fewer because of it makes every step one of these: from too far
apart, each image is a keyframe. What arrives meanwhile waits for its turn, a few images of it.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

REMEMBERED = 31
"""steps, and times between arrivals, that the time of a step and the period are taken from: a
second of camera"""
ENOUGH = 8
"""fewer than these say nothing yet"""
APART_S, WAITING = 0.1, 5
"""images that arrive during a long step are kept so far apart, and so many at most: as many usual
steps later the node is up to date again"""


class Pace:
    """Not thread-safe; times are those of `time.monotonic()`, seconds.

    Args:
        most: images a second to take at most, 0: no limit; asked at every image.
    """

    def __init__(self, most: Callable[[], float]) -> None:
        self._most = most
        self._arrived = -math.inf
        self._between: deque[float] = deque(maxlen=REMEMBERED)
        """seconds between two arrivals"""
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._due = -math.inf
        """when the next image should have been received"""

    @property
    def idle(self) -> bool:
        """Whether images are left out because fewer are wanted."""
        return self._most() > 0

    def arrived(self, at: float) -> None:
        """An image was received."""
        if self._arrived > -math.inf:
            self._between.append(at - self._arrived)
        self._arrived = at

    def keeps(self, newest: float, before: float, waiting: int) -> bool:
        """Whether the newest of the images that wait, `waiting` of them, stays when another one
        arrives; `before` is when the one before it, or the last that was taken, was received."""
        quick = bool(self._steps) and self._step() < APART_S
        return quick and not self.idle and waiting < WAITING and newest - before >= APART_S

    def stepped(self, received_at: float, seconds: float) -> None:
        """The image received at `received_at` was taken; its step lasted `seconds`."""
        self._steps.append(seconds)
        period, most = self._period(), self._most()
        apart = max(self._apart(period), 1.0 / most if most > 0 else 0.0)
        # the images are taken on a grid of their own, which never strays from them by more than
        # half a period: 2.4 periods apart is 2, 3, 2, 2, 3 (Bresenham's line)
        middle = received_at + apart
        self._due = min(max(self._due + apart, middle - 0.5 * period), middle + 0.5 * period)

    def wait(self, received_at: float, now: float) -> float:
        """Seconds to wait for a better image than the one received at `received_at`; 0: take it."""
        half = 0.5 * self._period()
        return 0.0 if received_at >= self._due - half else max(0.0, self._due + half - now)

    def _period(self) -> float:
        """Median time between two images, 0 while unknown."""
        if len(self._between) < ENOUGH:
            return 0.0
        return sorted(self._between)[len(self._between) // 2]

    def _step(self) -> float:
        """Median time of a step."""
        return sorted(self._steps)[len(self._steps) // 2]

    def _apart(self, period: float) -> float:
        """Time between two images to take that the steps fit in; 0 where they fit between any."""
        if period <= 0 or len(self._steps) < ENOUGH:
            return 0.0
        step = self._step()
        return step if step > period else 0.0
