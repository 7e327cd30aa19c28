"""Images that never came, counted by the gaps in the stamps of those that did.

A transport that loses images says nothing about it: Fast DDS drops what does not fit into its
shared memory before either side hears of it. The stamps tell: where two lie three periods apart,
two are missing.
"""

from __future__ import annotations

from collections import deque

import numpy as np

REMEMBERED = 64
"""distances between stamps that the period is taken from"""
ENOUGH = 48
"""fewer say nothing yet"""
COMMON = 0.2
"""share of the distances that must be alike, to 20 %, for the shortest such to be the period:
losses make distances longer, and a driver that catches up after a stall makes a few shorter"""
REGULAR = 0.8
"""share of the distances that must be multiples of the period, to a fifth of it: in a stream
without a rhythm a long distance is no loss"""
PAUSE_NS = 2_000_000_000
"""a longer gap is a camera that paused"""


class Gaps:
    """Counts the images missing from one stream; `missing` since start, `share` of the latest."""

    def __init__(self) -> None:
        self.missing = 0
        self._last = 0
        self._counting = False
        self._distances: deque[int] = deque(maxlen=REMEMBERED)

    def note(self, stamp_ns: int) -> None:
        """An image arrived with this stamp; one that is not later than the last says nothing.
        Those stamped together after a stall count against the gap before them."""
        distance, self._last = stamp_ns - self._last, stamp_ns
        if not 0 < distance < PAUSE_NS:
            return
        self._distances.append(distance)
        if len(self._distances) < ENOUGH or not (period := self._period()):
            return
        uncounted = [distance] if self._counting else list(self._distances)
        self._counting = True
        self.missing += sum(round(each / period) - 1 for each in uncounted)

    @property
    def share(self) -> float:
        """Share of the latest images that are missing, in [0, 1)."""
        if len(self._distances) < ENOUGH or not (period := self._period()):
            return 0.0
        return 1.0 - len(self._distances) / sum(round(each / period) for each in self._distances)

    def _period(self) -> float:
        """Nanoseconds between two images: the shortest distance that is common; 0 without one."""
        values = np.sort(np.array(self._distances, np.float64))
        first = np.searchsorted(values, 0.8 * values, "left")
        alike = np.searchsorted(values, 1.2 * values, "right") - first
        at = int(np.argmax(alike >= min(COMMON * len(values), alike.max())))
        period = float(np.median(values[first[at] : first[at] + alike[at]]))
        ratio = values / period
        return period if np.mean(np.abs(ratio - np.rint(ratio)) < 0.2) >= REGULAR else 0.0
