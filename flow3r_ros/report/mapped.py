"""What the map made of a run: loops, refinement, and the way before and after."""

from __future__ import annotations

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
from flow3r_ros.types import Float64


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
    return card("The map", body + _ways(record, record.mapped))


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


def _ways(record: RunRecord, mapped: Trajectory) -> str:
    """Both ways from above, the map's brought onto the odometry's by Sim(3)."""
    try:
        odometry = record.trajectory()
        here, there = associate(mapped, odometry)
        moved = align_poses(mapped.poses[here], odometry.poses[there], "sim3").apply(mapped.poses)
    except EvaluationError:
        return ""
    lines = [
        _line("odometry", odometry.poses, 0),
        _line("map", moved, 3),
    ]
    chart = line_chart(lines, "right", "forward", width=900, height=460, equal=True)
    return legend([(line.color, line.label) for line in lines]) + chart


def _line(name: str, poses: Float64, shade: int) -> Line:
    return Line(
        name, np.asarray(poses[:, 0, 3]), np.asarray(poses[:, 2, 3]), color(shade), width=2.0
    )
