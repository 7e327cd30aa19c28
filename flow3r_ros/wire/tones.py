"""More than 8 bits of gray or colour to 8, by what the pictures contain, the same for a whole
recording.

Infrared, thermal and industrial cameras send 10, 12 or 14 bits in 16; the upper 8 of those are
black. The range of values is therefore taken from the first picture: 0 to the next power of two
(the value is shifted, so a camera that uses all 16 bits keeps its upper 8), or, where the content
lies in a narrow band far from zero (thermal), that band with room on both sides. The range stays
for the whole recording; it grows, and that is said, when more than `OUTSIDE` of a picture lies
beyond it. It never shrinks, so equal scenes stay equally bright.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import UInt8

OUTSIDE = 0.05
"""share of a picture beyond the range from which on the range grows"""
NARROW = 1 / 8
"""content that fills less of its power of two gets a range of its own"""
NARROW_BITS = 12
"""bits from which on that may happen: a dark picture of few bits is dark, not thermal"""

Range = tuple[float, float]


class Tones:
    """The range of values of each encoding of one recording.

    Args:
        say: told (key, text) once per encoding which range is used, and when it grows.
    """

    def __init__(self, say: Callable[[str, str], None]) -> None:
        self._say = say
        self._ranges: dict[str, Range] = {}

    def to_8_bits(self, values: NDArray[Any], encoding: str) -> UInt8:
        """uint8 of the same shape; uint8 comes back as it is, NaN as 0."""
        if values.dtype == np.uint8:
            return np.asarray(values)
        values = values.astype(values.dtype.newbyteorder("="), copy=False)
        sample = values[::3, ::3]  # an odd step sees every colour of a mosaic
        sample = sample[np.isfinite(sample)]
        range_ = self._ranges.get(encoding)
        if sample.size and (range_ is None or _outside(sample, range_) > OUTSIDE):
            content = _range_of(sample)
            if range_ is not None:
                content = _grown(range_, content, values.dtype.kind)
            self._ranges[encoding] = content
            self._announce(encoding, values.dtype, content, grown=range_ is not None)
            range_ = content
        return _scaled(values, range_ or (0.0, 1.0))

    def _announce(self, encoding: str, kind: np.dtype[Any], range_: Range, grown: bool) -> None:
        if range_ == (0.0, 65536.0) and kind == np.uint16 and not grown:
            return
        verb = "grows to" if grown else "is"
        self._say(
            f"tones {encoding} {range_}",
            f"{encoding}: the range of values {verb} {range_[0]:g} to {range_[1]:g}, shown as 8 "
            "bits",
        )


def _outside(sample: NDArray[Any], range_: Range) -> float:
    return float(np.mean((sample < range_[0]) | (sample >= range_[1])))


def _grown(range_: Range, content: Range, kind: str) -> Range:
    """Both ranges; a range of bits stays one."""
    low, high = min(range_[0], content[0]), max(range_[1], content[1])
    return (
        (0.0, float(2 ** int(high - 1).bit_length())) if kind == "u" and low == 0 else (low, high)
    )


def _range_of(sample: NDArray[Any]) -> Range:
    """Range for the content of a picture, see above."""
    low, high = (float(value) for value in np.percentile(sample, (0.1, 99.9)))
    span = high - low
    if sample.dtype.kind == "u":
        bits = max(int(high).bit_length(), 8)
        if bits < NARROW_BITS or span >= NARROW * 2**bits:
            return 0.0, float(2**bits)
        span = max(span, 64.0)
    elif low >= 0 and high <= 1:
        return 0.0, 1.0
    elif low >= 0 and high < 256:
        return 0.0, 256.0
    return low - span / 2, high + span / 2 + 1e-6


def _scaled(values: NDArray[Any], range_: Range) -> UInt8:
    low, high = range_
    shift = int(high).bit_length() - 9
    if values.dtype.kind == "u" and low == 0 and high == 2 ** (shift + 8):
        return np.asarray(np.minimum(values >> shift, 255), np.uint8)
    shown = (np.nan_to_num(values.astype(np.float32), nan=low) - low) * (256.0 / (high - low))
    return np.asarray(np.clip(shown, 0, 255), np.uint8)
