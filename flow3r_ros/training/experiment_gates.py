"""What the controlled experiment must show before its table means anything: a start that has
learned the task, and a positive control that separates.

A start that predicts no rotation, or a factored head that predicts zero flow, has nothing to teach;
and a budget at which labels for everything do not help cannot show that flow does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

FACTOR = 2.0
"""how many times better than the trivial answer the start must be (the issue's figure)"""
FEWEST_SEEDS = 4
"""with fewer a spread over seeds says nothing: rows of three seeds lie apart by chance, in this
order, once in 20 times, of four seeds once in 70, and there are several measures"""
CONTROL, BASELINE = "3d-sup++", "3d-sup"
JUDGED = {"rotation_deg": -1, "rta_15": 1, "direction_deg": -1, "abs_rel": -1, "epe_geometry": -1}
"""measures of geometry that rows may be ranked by: 1 = more is better, -1 = less is better"""
_GATES = {
    "rotation": ("rotation_deg", "rotation_deg_identity", "identity's", "deg"),
    "factored head": ("epe_head", "epe_zero", "zero flow's", "px"),
}
TRIVIAL = tuple(trivial for _, trivial, _, _ in _GATES.values())
"""what the gates compare with, among the scores of `validation.validate`"""


@dataclass(frozen=True)
class Gate:
    """One comparison of the start with an answer that costs nothing, median errors on held-out
    clips."""

    name: str
    ours: float
    trivial: float
    whose: str
    unit: str

    @property
    def passed(self) -> bool:
        """At least `FACTOR` times better; a number that is missing (NaN) never is."""
        return self.ours * FACTOR <= self.trivial

    def __str__(self) -> str:
        better = self.trivial / self.ours if self.ours else float("inf")
        verdict = "passed" if self.passed else "**failed**"
        return (
            f"{self.name}: {self.ours:.3f} {self.unit}, {self.whose} {self.trivial:.3f} "
            f"{self.unit} ({better:.2f} times better, needed {FACTOR:g}): {verdict}"
        )


def gates_of(start: Mapping[str, Any]) -> list[Gate]:
    """The gates of the start's scores."""
    missing = float("nan")
    return [
        Gate(name, float(start.get(ours, missing)), float(start.get(trivial, missing)), whose, unit)
        for name, (ours, trivial, whose, unit) in _GATES.items()
    ]


def separating(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """The measures in which the positive control is better than the baseline beyond the spread:
    every seed of `CONTROL` better than every seed of `BASELINE`, at least `FEWEST_SEEDS` each."""
    return [metric for metric in JUDGED if _separates(rows, metric)]


def _separates(rows: Sequence[Mapping[str, Any]], metric: str) -> bool:
    sign = JUDGED[metric]
    control, baseline = (
        [sign * float(row[metric]) for row in rows if row["row"] == name and metric in row]
        for name in (CONTROL, BASELINE)
    )
    enough = min(len(control), len(baseline)) >= FEWEST_SEEDS
    return enough and min(control) > max(baseline)
