"""Images that never came, counted by the gaps in the stamps of those that did.

A transport that loses images says nothing about it: Fast DDS drops what does not fit into its
shared memory before either side hears of it. The stamps tell: where two lie three periods apart,
two are missing.
"""

from __future__ import annotations

from collections import deque

REMEMBERED = 64
"""distances between stamps that the period is taken from"""
ENOUGH = 16
"""fewer say nothing yet"""
SHORTEST = 0.1
"""quantile of the distances that is the period: losses only make distances longer"""
PAUSE_NS = 2_000_000_000
"""a longer gap is a camera that paused"""


class Gaps:
    """Counts the images missing from one stream; `missing` since start, `share` of the latest."""

    def __init__(self) -> None:
        self.missing = 0
        self._last = 0
        self._distances: deque[int] = deque(maxlen=REMEMBERED)

    def note(self, stamp_ns: int) -> None:
        """An image arrived with this stamp; one that is not later than the last says nothing."""
        distance, self._last = stamp_ns - self._last, stamp_ns
        if not 0 < distance < PAUSE_NS:
            return
        self._distances.append(distance)
        if len(self._distances) >= ENOUGH:
            self.missing += round(distance / self._period()) - 1

    @property
    def share(self) -> float:
        """Share of the latest images that are missing, in [0, 1)."""
        if len(self._distances) < ENOUGH:
            return 0.0
        period = self._period()
        return 1.0 - len(self._distances) / sum(round(each / period) for each in self._distances)

    def _period(self) -> float:
        """Nanoseconds between two images."""
        return float(sorted(self._distances)[int(SHORTEST * len(self._distances))])
