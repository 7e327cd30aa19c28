"""`timestamps.txt`: one stamp a line, decimal seconds, read into integer nanoseconds without
passing through a float."""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from pathlib import Path

from flow3r_ros.errors import InputError

FILE = "timestamps.txt"


def read_stamps(path: Path) -> list[int]:
    """Stamps in int nanoseconds; empty lines and `#` comments are skipped.

    Raises InputError naming the line that is not a number.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"{path}: cannot be read ({error})", "give one stamp in seconds a line"
        ) from error
    stamps = []
    for number, line in enumerate(lines, 1):
        text = line.split("#", 1)[0].strip()
        if not text:
            continue
        try:
            stamps.append(int((Decimal(text) * 1_000_000_000).to_integral_value()))
        except (InvalidOperation, ValueError, OverflowError) as error:
            raise InputError(
                f"{path}:{number}: '{text[:40]}' is not a stamp", "give one stamp in seconds a line"
            ) from error
    return stamps
