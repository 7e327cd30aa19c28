"""What time is this? The header's stamp, or the time of reception where the driver left it out.

| header stamp | answer |
|---|---|
| positive | the stamp, as it is |
| zero or negative | the time of reception; dropped (`no_stamp`) where that is zero too |
| the same as before, on another picture | the time of reception, until the stamp changes |
| the same as before, on the same picture | the stamp; the odometry drops the repetition |

A simulation's seconds since its start are stamps like any other.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from flow3r_ros.errors import FrameError
from flow3r_ros.types import UInt8

SOONEST_NS = 1_000_000
"""pictures received closer together than this are one message delivered twice"""


class Stamps:
    """Decides the stamps of one topic's images, in the order they were received.

    Args:
        say: told (key, text) once when receive times take the place of stamps.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self.forget()

    def forget(self) -> None:
        """The next stamp is taken as it comes."""
        self._last: tuple[int, int, UInt8] | None = None
        self._standing = 0

    def stamp(self, header_ns: int, received_ns: int, rgb: UInt8) -> int:
        """Nanoseconds of one image; raises FrameError (`no_stamp`) where there is neither."""
        if header_ns <= 0:
            if received_ns <= 0:
                raise FrameError(
                    "no_stamp",
                    "an image has neither a stamp nor a time of reception",
                    "let the driver stamp its images, or start it after the clock",
                )
            self._say("zero stamp", "header stamps are zero; receive times are used instead")
            return received_ns
        if self._last is not None and header_ns == self._last[0] != self._standing:
            later = received_ns >= self._last[1] + SOONEST_NS
            if later and not np.array_equal(rgb, self._last[2]):
                self._standing = header_ns
                self._say(
                    "standing stamp",
                    "every image has the same header stamp; receive times are used instead",
                )
        self._last = header_ns, received_ns, rgb
        return received_ns if header_ns == self._standing and received_ns > 0 else header_ns
