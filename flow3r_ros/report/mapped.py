"""What the map made of a run: loops, refinement, and the way before and after."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from flow3r_ros.errors import EvaluationError
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_alignment import align_poses, associate
from flow3r_ros.geometry.trajectory_errors import measure_trajectory
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.style import card, legend, table
from flow3r_ros.report.svg import Line, color, line_chart
from flow3r_ros.report.words import unit_of
from flow3r_ros.types import Float64

MAP_COLOR, LOOP_COLOR = 5, 4
"""colours of the way in the map and of loops, wherever they are drawn"""


@dataclass(frozen=True)
class LaidMap:
    """The map in the axes and unit of the odometry: camera centres `[M, 3]` of its frames, and
    `loops` `[3 L, 3]`, the two places of each and a row of NaN that ends the line."""

    centres: Float64
    loops: Float64

    @property
    def closed(self) -> int:
        """Number of the loops that are drawn."""
        return len(self.loops) // 3


def lay_map(record: RunRecord) -> LaidMap | None:
    """The map of a run laid by Sim(3) onto the segment of the odometry that it has most frames of:
    other segments have axes and a unit of their own. None without a map, or where too few frames
    match."""
    if record.mapped is None:
        return None
    try:
        odometry = record.trajectory()
        here, there = associate(record.mapped, odometry)
        rows = np.searchsorted(record.stamps_ns, odometry.stamps_ns[there])
        segments = record.column("segment").astype(int)[np.minimum(rows, len(record) - 1)]
        most = segments == np.bincount(segments).argmax()
        onto = align_poses(record.mapped.poses[here[most]], odometry.poses[there[most]], "sim3")
    except EvaluationError:
        return None
    centres = np.asarray(onto.apply(record.mapped.poses)[:, :3, 3])
    return LaidMap(centres, _lines_of_loops(record, centres))


def _lines_of_loops(record: RunRecord, centres: Float64) -> Float64:
    """Where the loops of a run lie among the centres of its map, as in `LaidMap`."""
    assert record.mapped is not None
    row_of = {int(stamp): row for row, stamp in enumerate(record.mapped.stamps_ns)}
    ends = [
        [centres[row_of[int(stamp)]] for stamp in loop] + [np.full(3, np.nan)]
        for loop in record.loops
        if all(int(stamp) in row_of for stamp in loop)
    ]
    return np.array(ends, np.float64).reshape(-1, 3)


def map_card(record: RunRecord) -> str:
    """Loops and refinement of a run in numbers, and its way in `odom` and in the map from above;
    empty for a run without a map."""
    if record.mapped is None:
        return ""
    summary = record.summary
    rows = [
        ["frames", str(len(record)), str(summary.get("frames_in_map", len(record.mapped.poses)))],
        *_errors(record, record.mapped),
    ]
    refined = summary.get("refinement") or {}
    if "error_px" in refined:
        error = refined["error_px"]
        rows.append(["reprojection error (px)", str(error["before"]), str(error["after"])])
        rows.append(["points, observations", "", f"{refined['points']}, {refined['observations']}"])
    loops: dict[str, Any] = summary.get("loops") or {}
    if loops:
        refused = ", ".join(f"{reason}: {count}" for reason, count in loops["refused"].items())
        rows.append(["loops closed", "", str(loops["closed"])])
        rows.append(["candidates refused", "", refused or "none"])
    body = table(
        ["", "odometry (before)", "map (after)"], [[escape(each) for each in row] for row in rows]
    )
    laid = lay_map(record)
    note = "" if laid is None else "The map is laid onto the odometry by Sim(3)."
    return card("The map", body + ("" if laid is None else _ways(record, laid)), note)


def _errors(record: RunRecord, mapped: Trajectory) -> list[list[str]]:
    """Rows of the errors against the ground truth, where there is one."""
    if record.reference is None:
        return []
    try:
        before, after = (
            {
                align: measure_trajectory(each, record.reference, align=align)["ate_rmse"]
                for align in ("se3", "sim3")
            }
            for each in (record.trajectory(), mapped)
        )
    except EvaluationError:
        return []
    return [
        [f"ATE (m), {words} alignment", f"{before[align]:.4g}", f"{after[align]:.4g}"]
        for align, words in (("sim3", "Sim(3)"), ("se3", "SE(3)"))
    ]


def _ways(record: RunRecord, laid: LaidMap) -> str:
    """Both ways from above and from the side, and the loops between the places they connect."""
    ways = [
        ("odometry", 0, record.trajectory().poses[:, :3, 3]),
        ("map", MAP_COLOR, laid.centres),
    ]
    if laid.closed:
        ways.append((f"loops ({laid.closed})", LOOP_COLOR, laid.loops))
    unit = unit_of(record.summary)

    def view(across: int, up: int, flip: float, x_label: str, y_label: str, where: str) -> str:
        lines = [
            Line(name, way[:, across], flip * way[:, up], color(shade), width=2.0)
            for name, shade, way in ways
        ]
        chart = line_chart(
            lines, f"{x_label} ({unit})", f"{y_label} ({unit})", width=560, height=420, equal=True
        )
        return f"<figure>{chart}<figcaption>from {where}</figcaption></figure>"

    above = view(0, 2, 1.0, "right", "forward", "above")
    side = view(2, 1, -1.0, "forward", "up", "the side")
    keys = legend([(color(shade), name) for name, shade, _ in ways])
    return f'{keys}<div class="pair">{above}{side}</div>'
