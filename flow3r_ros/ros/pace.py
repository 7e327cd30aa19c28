"""Which of the images that arrive are taken, so that those taken lie evenly apart in time.

An engine that needs longer than the camera's period takes every second, third, ... image: evenly
spaced ones are easier to follow than the same number at random, and each is taken as it arrives. A
node that nobody listens to takes a few a second.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable

import numpy as np

REMEMBERED = 31
"""arrivals and steps that the period and the time of a step are taken from: a second of camera,
with two or three of the longer steps that take a keyframe in"""
ENOUGH = 8
"""fewer than these say nothing yet"""
EASIER = 0.85
"""share of the time between two images that steps must fit in before more images are taken"""


class Pace:
    """Not thread-safe; times are those of `time.monotonic()`, seconds.

    Args:
        most: images a second to take at most, 0: no limit; asked at every image.
    """

    def __init__(self, most: Callable[[], float]) -> None:
        self._most = most
        self._arrivals: deque[float] = deque(maxlen=REMEMBERED)
        self._steps: deque[float] = deque(maxlen=REMEMBERED)
        self._taken = -math.inf
        self._stride = 1

    @property
    def idle(self) -> bool:
        """Whether images are left out because fewer are wanted."""
        return self._most() > 0

    def arrived(self, at: float) -> None:
        """An image was received."""
        self._arrivals.append(at)

    def stepped(self, received_at: float, seconds: float) -> None:
        """The image received at `received_at` was taken; its step lasted `seconds`."""
        self._taken = received_at
        self._steps.append(seconds)

    def wait(self, received_at: float, now: float) -> float:
        """Seconds to wait for a better image than the one received at `received_at`; 0: take it."""
        period = self._period()
        most = self._most()
        apart = max(self._stretch(period), 1.0 / most if most > 0 else 0.0)
        if received_at - self._taken >= apart - 0.5 * period:
            return 0.0
        return max(0.0, self._taken + apart + 0.5 * period - now)

    def _period(self) -> float:
        """Time between two images, 0 while unknown."""
        if len(self._arrivals) < ENOUGH:
            return 0.0
        return float(np.median(np.diff(np.array(self._arrivals))))

    def _stretch(self, period: float) -> float:
        """Time between two images to take that the steps fit in; 0 where they fit between any."""
        if period <= 0 or len(self._steps) < ENOUGH:
            return 0.0
        needed = float(np.mean(self._steps)) / period
        if needed > self._stride or needed < EASIER * (self._stride - 1):
            self._stride = max(1, math.ceil(needed))
        return self._stride * period if self._stride > 1 else 0.0
