"""`flow3r bench`: runs the parts' own suites, adds machine and commit, and writes
docs/performance.md.

A suite is a function of `thorough` (take the full length of time where a suite has a long part)
that returns `rows`, one dict a measurement: `name`, `median`, `unit`, and where they apply `p10`,
`p90`, `baseline` (what it stands beside), `baseline_median`, `ratio` (baseline over ours: above one
is faster) and `note`; `table`, dicts of text with the same keys, is printed as it is; other scalars
of the result are facts that are printed below. What is compared is measured in turns, so that a
busy machine hurts both alike.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from flow3r_ros.errors import Flow3rError, OutputError, cause_of
from flow3r_ros.evaluation.machine import commit, describe_machine

log = logging.getLogger(__name__)
Suite = Callable[[], dict[str, Any]]


@dataclass(frozen=True)
class Timing:
    """Milliseconds of repeated calls: median, 10th and 90th percentile."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, milliseconds: list[float]) -> Timing:
        """The spread of single measurements."""
        p10, median, p90 = (float(value) for value in np.percentile(milliseconds, [10, 50, 90]))
        return cls(median, p10, p90)


def measure_in_turns(
    cases: Mapping[str, Callable[[], object]], repeats: int = 10, warmup: int = 2
) -> dict[str, Timing]:
    """Time every case `repeats` times, one after the other in each round, after `warmup` rounds
    that do not count."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + repeats):
        for name, case in cases.items():
            start = perf_counter()
            case()
            if turn >= warmup:
                taken[name].append(1000 * (perf_counter() - start))
    return {name: Timing.of(values) for name, values in taken.items()}


def row(
    name: str, timing: Timing, baseline: str = "", against: Timing | None = None, note: str = ""
) -> dict[str, Any]:
    """One row of a suite, beside its baseline where there is one."""
    result: dict[str, Any] = {
        "name": name,
        "median": timing.median,
        "p10": timing.p10,
        "p90": timing.p90,
        "unit": "ms",
        "note": note,
    }
    if against is not None:
        result |= {
            "baseline": baseline,
            "baseline_median": against.median,
            "ratio": against.median / timing.median,
        }
    return result


def run_suites(suites: Mapping[str, Suite]) -> dict[str, Any]:
    """Run each suite; one that cannot run (a missing model, say) leaves its reason under `error`
    and the others go on."""
    measured: dict[str, Any] = {}
    for name, suite in suites.items():
        log.info("suite %s", name)
        try:
            measured[name] = suite()
        except (Flow3rError, ImportError) as error:
            measured[name] = {"rows": [], "error": str(error)}
    return {
        "machine": describe_machine(),
        "commit": commit(),
        "date": f"{datetime.now(timezone.utc):%Y-%m-%d %H:%M} UTC",
        "suites": measured,
    }


def write_performance(path: Path, result: Mapping[str, Any]) -> Path:
    """Write the page of a result of `run_suites`.

    Raises:
        OutputError: the file cannot be written.
    """
    try:
        path.write_text(render_suites(result), encoding="utf-8")
    except OSError as error:
        raise OutputError(f"{path}: cannot be written ({cause_of(error)})") from error
    return path


def render_suites(result: Mapping[str, Any]) -> str:
    """The page as Markdown."""
    machine = result["machine"]
    parts = [
        "# Performance\n",
        "Written by `flow3r bench --write docs/performance.md`; no number here is "
        "edited by hand. Medians, with the 10th and 90th "
        "percentile; a ratio above one means faster than what stands beside it, "
        "measured in turns in the same process.\n",
        f"Commit {result['commit'] or 'unknown'}, {result['date']}.\n",
        "\n".join(f"- {name}: {value}" for name, value in machine.items()) + "\n",
    ]
    if machine["gpu"] == "none":
        parts.append(
            "GPU rows: not measured yet (no GPU in this machine); what they will be "
            "stands under `gpu` of the suite.\n"
        )
    for name, suite in result["suites"].items():
        parts.append(f"## {name}\n")
        parts.append(_rows(suite.get("rows", [])))
        parts.append(_table(suite.get("table", [])))
        facts = {key: value for key, value in suite.items() if key not in ("rows", "table")}
        parts.append("\n".join(f"- {key}: {_value(value)}" for key, value in facts.items()) + "\n")
    return "\n".join(part for part in parts if part.strip())


def _rows(rows: list[dict[str, Any]]) -> str:
    if not rows:
        return ""
    lines = [
        "| | median | p10 to p90 | beside | its median | ratio | note |",
        "|---|---|---|---|---|---|---|",
    ]
    for entry in rows:
        unit = entry.get("unit", "")
        spread = f"{_value(entry['p10'])} to {_value(entry['p90'])}" if "p10" in entry else ""
        beside = f"{_value(entry['baseline_median'])} {unit}" if "baseline_median" in entry else ""
        ratio = f"{entry['ratio']:.2f}" if "ratio" in entry else ""
        cells = [
            entry["name"],
            f"{_value(entry['median'])} {unit}",
            spread,
            entry.get("baseline", ""),
            beside,
            ratio,
            entry.get("note", ""),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def _table(entries: list[dict[str, str]]) -> str:
    """Entries with the same keys, as they are."""
    if not entries:
        return ""
    lines = [list(entries[0]), ["---"] * len(entries[0]), *(list(e.values()) for e in entries)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines) + "\n"


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_value(part)}" for key, part in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
