"""Stamps written as text by other people's programs, as integer nanoseconds: which unit they are in
is told by what they say, once for a whole list.

Seconds are the convention. ORB-SLAM, EuRoC and VINS write nanoseconds, phones milliseconds, KITTI
dates. A number near the present in one unit is in none of the others; numbers that count from some
start are judged by their distances.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime, timezone
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from math import log10
from statistics import median
from typing import Literal

Unit = Literal["seconds", "milliseconds", "microseconds", "nanoseconds", "dates"]

_SCALE: dict[Unit, int] = {
    "seconds": 10**9,
    "milliseconds": 10**6,
    "microseconds": 10**3,
    "nanoseconds": 1,
}
"""nanoseconds in a unit"""
EPOCH_S = (900_000_000, 4_200_000_000)
"""seconds since 1970 that are near the present: 1998 to 2103"""
_LONGEST_STEP_S = 1000
"""seconds between two frames of a slow time lapse; more is another unit"""
_USUAL_STEP_S = 0.05
_DATE = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[ T_](\d\d)[:-](\d\d)[:-](\d\d)(?:\.(\d{1,9})\d*)?(?:Z|\+00:?00)?"
)


def nanoseconds(texts: Sequence[str]) -> tuple[list[int], Unit]:
    """Stamps as int nanoseconds, and the unit they were written in; no digit is lost.

    Dates (`2011-09-26 13:02:25.964389445`) are taken as UTC. Raises ValueError, whose argument is
    the index of the stamp that is none, or -1 where no unit makes sense of all of them.
    """
    if texts and all(_DATE.fullmatch(text) for text in texts):
        return [_of_date(text, index) for index, text in enumerate(texts)], "dates"
    values = []
    for index, text in enumerate(texts):
        try:
            value = Decimal(text)
        except InvalidOperation:
            raise ValueError(index) from None
        if not value.is_finite() or abs(value) >= 2**63:
            raise ValueError(index)
        values.append(value)
    unit = _unit(values)
    stamps = [int((value * _SCALE[unit]).to_integral_value()) for value in values]
    for index, stamp in enumerate(stamps):
        if abs(stamp) >= 2**63:
            raise ValueError(index)
    return stamps, unit


def epoch_unit(value: Decimal) -> Unit | None:
    """The unit in which a number is a time between 1998 and 2103, if there is one."""
    low, high = EPOCH_S
    return next(
        (unit for unit, scale in _SCALE.items() if low <= value * scale / 10**9 < high), None
    )


def _unit(values: list[Decimal]) -> Unit:
    steps = [b - a for a, b in pairwise(values) if b > a]
    step = float(median(steps)) if steps else 0.0
    near = {epoch_unit(value) for value in values}
    first = next(iter(near)) if len(near) == 1 else None
    if first is not None and step * _SCALE[first] <= _LONGEST_STEP_S * 10**9:
        return first
    if step <= _LONGEST_STEP_S:
        return "seconds"
    whole = all(value == value.to_integral_value() for value in values)
    likely = {
        unit: abs(log10(step * scale / 1e9 / _USUAL_STEP_S))
        for unit, scale in _SCALE.items()
        if 1e-4 <= step * scale / 1e9 <= 10.0
    }
    if not whole or not likely:
        raise ValueError(-1)
    return min(likely, key=lambda unit: likely[unit])


def _of_date(text: str, index: int) -> int:
    found = _DATE.fullmatch(text)
    assert found is not None
    try:
        when = datetime(*(int(part) for part in found.groups()[:6]), tzinfo=timezone.utc)  # type: ignore[misc, arg-type]
    except ValueError:
        raise ValueError(index) from None
    whole = (when - datetime(1970, 1, 1, tzinfo=timezone.utc)) // (when.resolution * 1_000_000)
    return whole * 10**9 + int((found.group(7) or "0").ljust(9, "0"))
