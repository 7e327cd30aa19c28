"""Numbers and tables of the pages that are written by measuring."""

from __future__ import annotations

from collections.abc import Sequence


def number(value: float | None, unknown: str = "unknown") -> str:
    """Three significant digits."""
    return unknown if value is None else f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; short rows are filled up."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    lines += ["| " + " | ".join([*row, *[""] * (len(head) - len(row))]) + " |" for row in rows]
    return "\n".join(lines) + "\n"
