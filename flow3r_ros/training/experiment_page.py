"""The page of the controlled experiment: gates, table, figure and how it was made, all from
`experiment.json`.

Where a gate failed, or the positive control does not separate, the page says "not measured" with
those numbers and shows no other row. What a person wrote under the heading `READING` stays when the
page is written again. To refresh the repository's page: `python -m
flow3r_ros.training.experiment_page DIR/experiment.json docs/experiments.md`.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np

from flow3r_ros.paths import write_atomically
from flow3r_ros.training.experiment_gates import (
    BASELINE,
    CONTROL,
    FEWEST_SEEDS,
    JUDGED,
    gates_of,
    separating,
)

METRICS = (
    "rra_5",
    "rta_15",
    "rotation_deg",
    "direction_deg",
    "abs_rel",
    "epe_geometry",
    "epe_head",
)
PUBLISHED = {
    "3d-sup": (0.7500, 0.6929),
    "flow-projective": (0.6700, 0.4572),
    "flow-tracking": (0.7438, 0.7021),
    "flow-factored": (0.7700, 0.7366),
    "3d-sup++": (0.8033, 0.7333),
}
"""ScanNet++ RRA@30, RTA@30 of the paper (`flow3r_training_and_results.md`, section 6)"""
READING = "## How to read this"


class Results(TypedDict):
    """What `experiment.json` holds; a row has `row`, `seed`, the METRICS and `seconds`."""

    command: str
    machine: str
    seeds: list[int]
    budget: dict[str, int]
    introduction: str
    rows: list[dict[str, Any]]


def render_table(rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> str:
    """Markdown: mean and spread (half the range over seeds) of every row in some of METRICS, beside
    the published RRA@30 / RTA@30."""
    names = list(dict.fromkeys(str(row["row"]) for row in rows))
    lines = [
        "| supervision | seeds | " + " | ".join(metrics) + " | published RRA@30 / RTA@30 |",
        "|---" * (len(metrics) + 3) + "|",
    ]
    for name in names:
        same = [row for row in rows if row["row"] == name]
        cells = [_cell([float(row[metric]) for row in same if metric in row]) for metric in metrics]
        published = "{:.3f} / {:.3f}".format(*PUBLISHED[name]) if name in PUBLISHED else "-"
        lines.append(f"| {name} | {len(same)} | " + " | ".join(cells) + f" | {published} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def write_page(path: Path, results: Results) -> Path:
    """Write the page and, beside it, the figure of every seed (`.svg`) where rows may be compared;
    the reading of an earlier page is kept."""
    _, heading, reading = (
        path.read_text(encoding="utf-8").partition(READING) if path.exists() else ("", "", "")
    )
    minutes = sum(float(row["seconds"]) for row in results["rows"]) / 60
    budget = results["budget"]
    text = f"""# The paper's controlled experiment at our scale

```
{results["command"]}
```

{results["introduction"]}
- Pretraining: {budget["pretraining_steps"]} steps; every row: {budget["steps"]} steps;
  {budget["clips_per_step"]} clips a step.
- Clips: {budget["pretraining"]} to pretrain on, {budget["labelled"]} labelled,
  {budget["unlabelled"]} unlabelled at 1x, {budget["held_out"]} held out (other scenes and
  textures).
- Seeds {", ".join(map(str, results["seeds"]))}; {minutes:.0f} minutes of wall time over all
  trainings; {results["machine"]}.

## Gates

{_findings(results["rows"], path.with_suffix(".svg"))}
"""
    write_atomically(path, (text + (heading + reading if heading else "")).encode())
    return path


def _findings(rows: Sequence[dict[str, Any]], figure: Path) -> str:
    """The gates, then the table, or why there is none."""
    gates = gates_of(rows[0])
    lines = "".join(f"- {gate}\n" for gate in gates)
    failed = [gate.name for gate in gates if not gate.passed]
    metrics = [] if failed else separating(rows)
    if not metrics:
        figure.unlink(missing_ok=True)
    if failed:
        return f"{lines}\n**Not measured**: gate {', '.join(failed)}. No row was trained.\n"
    if not metrics:
        return f"""{lines}- positive control: **failed**. In none of these is every seed of
  `{CONTROL}` better than every seed of `{BASELINE}` (at least {FEWEST_SEEDS} seeds):

{render_table([row for row in rows if row["row"] in (BASELINE, CONTROL)], list(JUDGED))}
**Not measured**: at this budget labels for everything do not help beyond the spread over seeds, so
nothing can be said of flow, and no other row was trained.
"""
    _draw(figure, rows, metrics)
    silent = [metric for metric in JUDGED if metric not in metrics]
    return f"""{lines}- positive control: passed in {", ".join(metrics)}; not measured:
  {", ".join(silent) or "nothing"}

## Rows

Cells are means over seeds, ± half their range. `rotation_deg`, `direction_deg`: median errors of
rotation and translation direction; `rta_15`: share of pairs with a direction within 15 degrees
(more is better); `abs_rel`: depth, scaled by medians; `epe_geometry`: median flow error in pixels
of predicted points and poses (less is better). `start` is the pretrained network. The published
column is another network, data and measure (ScanNet++): compare the order of rows, not the numbers.

{render_table(rows, metrics)}
![every seed]({figure.name})
"""


def _draw(path: Path, rows: Sequence[dict[str, Any]], metrics: Sequence[str]) -> None:
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(str(row["row"]) for row in rows))
    figure = Figure(figsize=(3 * len(metrics), 3.4), layout="constrained")
    for axis, metric in zip(
        figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True
    ):
        for row in rows:
            axis.plot(
                names.index(str(row["row"])),
                row.get(metric, np.nan),
                "o",
                color="tab:blue",
                alpha=0.7,
            )
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_title(metric, fontsize=9)
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    """`python -m flow3r_ros.training.experiment_page EXPERIMENT.json PAGE.md`: write the page
    again, keeping its reading."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("results", type=Path)
    parser.add_argument("page", type=Path)
    options = parser.parse_args()
    write_page(options.page, json.loads(options.results.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
