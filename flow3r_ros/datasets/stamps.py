"""Stamps of recordings that lie beside their pictures (`timestamps.txt`) or are the pictures'
names."""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path

from flow3r_ros.errors import InputError, cause_of
from flow3r_ros.wire.stamp_text import epoch_unit, nanoseconds

FILE = "timestamps.txt"
_CURE = "give one stamp in seconds a line"
_NUMBER = re.compile(r"[A-Za-z_-]*?(\d+(?:\.\d+)?)")
_SECONDS_AND_NANOSECONDS = re.compile(r"[A-Za-z_-]*?(\d{10})[_.-](\d{9})")
_DATED = re.compile(r"[A-Za-z_]*?(\d{4}-\d\d-\d\d[ T_]\d\d[:-]\d\d[:-]\d\d\.\d+Z?)")


def read_stamps(path: Path, notes: list[str] | None = None) -> list[int]:
    """Stamps of a text file, one a line, in int nanoseconds; empty lines and `#` comments are
    skipped.

    Seconds, and every other unit of `wire.stamp_text`, which `notes` is told then. Raises
    InputError naming the line that is no stamp, or saying that no unit of time fits.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({cause_of(error)})", _CURE) from error
    found = [
        (number, text)
        for number, line in enumerate(lines, 1)
        if (text := line.split("#", 1)[0].strip().rstrip(","))
    ]
    try:
        stamps, unit = nanoseconds([text for _, text in found])
    except ValueError as error:
        at = error.args[0]
        if at < 0:
            raise InputError(
                f"{path}: these are no times in seconds, nor in any other unit", _CURE
            ) from error
        number, text = found[at]
        raise InputError(f"{path}:{number}: '{text[:40]}' is not a stamp", _CURE) from error
    if notes is not None and unit != "seconds":
        notes.append(f"{path.name} is read as {unit}")
    return stamps


def stamps_of_names(names: Sequence[str]) -> list[int] | None:
    """Stamps in int nanoseconds of files that are all named after theirs, in the order of `names`;
    None when any is not.

    A name is a stamp when it is a date with parts of a second, seconds and nanoseconds with a sign
    between them, or a number, all after the same letters or none: one near the present (in any
    unit), or one of which some have decimals (seconds).
    """
    stems = [name.rpartition(".")[0] for name in names]
    if not stems or len({re.match(r"[A-Za-z_]*", stem).group() for stem in stems}) > 1:  # type: ignore[union-attr]
        return None
    texts: list[str] = []
    for stem in stems:
        both = _SECONDS_AND_NANOSECONDS.fullmatch(stem)
        single = _DATED.fullmatch(stem) or _NUMBER.fullmatch(stem)
        if not both and not single:
            return None
        texts.append(".".join(both.groups()) if both else single.group(1))  # type: ignore[union-attr]
    if not any("-" in text for text in texts):
        near = {epoch_unit(Decimal(text)) for text in texts}
        if (None in near or len(near) > 1) and not any("." in text for text in texts):
            return None
    try:
        return nanoseconds(texts)[0]
    except ValueError:
        return None
