"""Free memory goes back to the system.

Pictures and depth maps come and go in every thread, and glibc keeps what is freed between them: a
node that ran for half an hour held 86 of its 927 MB for nothing (measured with malloc_trim(3),
which gives such pages back). Other C libraries do without.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import lru_cache

PERIOD_S = 20.0
"""how often the node gives back"""


def give_back() -> None:
    """Return free pages of the heap; some milliseconds."""
    _trimmer()(0)


@lru_cache(maxsize=1)
def _trimmer() -> Callable[[int], int]:
    """malloc_trim of this process, or something that does nothing."""
    trim: Callable[[int], int] | None = getattr(ctypes.CDLL(None), "malloc_trim", None)
    return trim if trim is not None else lambda pad: 0
