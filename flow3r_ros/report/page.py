"""One page about a run, or about several side by side: self-contained HTML that opens anywhere,
light or dark."""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from pydantic import ValidationError

from flow3r_ros.errors import EvaluationError, OutputError, cause_of
from flow3r_ros.geometry.motion import path_length
from flow3r_ros.geometry.trajectory_alignment import align_poses, associate
from flow3r_ros.mappings import first_fault, read_mapping
from flow3r_ros.report.mapped import map_card
from flow3r_ros.report.panels import Comparison, compare, maps, over_time, strips, timings
from flow3r_ros.report.record import RunRecord, Summary
from flow3r_ros.report.scene import scene
from flow3r_ros.report.style import card, legend, page, table, tile
from flow3r_ros.report.svg import Line, color, line_chart
from flow3r_ros.report.words import camera_in_words, problems_of, unit_of
from flow3r_ros.types import Float64, TrackingState

RECORD_FILE = "record.npz"
MAX_SPANS = 20
"""stretches without TRACKING that a page lists"""


def write_report(
    path: Path, record: RunRecord, checks: Sequence[tuple[str, str, str]] = ()
) -> Path:
    """Write one run as a page, with further checks (`evaluation.recording_checks`) where given.

    Raises:
        OutputError: the file cannot be written.
    """
    comparison, why_not = _try_compare(record)
    body = [_head(record), _problems(record), _tiles(record, comparison)]
    body.append(_checks(checks) if checks else "")
    if why_not:
        body.append(card("Ground truth", f"<p>{escape(why_not)}</p>"))
    if len(record):
        body += [scene(record), strips(record), over_time(record, comparison)]
        body.append(maps(record, comparison))
        body.append(map_card(record))
    body += [_happened(record), timings(record), _counts(record), _settings(record)]
    return _write(path, page(record.title, "".join(body)))


def write_comparison(path: Path, records: Sequence[RunRecord]) -> Path:
    """Write several runs side by side: one row of numbers each, their ways in one map, their
    pictures below each other.

    Ways are aligned by Sim(3) to the ground truth of the first run that has one, otherwise to the
    first run.

    Raises:
        EvaluationError: no record was given.
        OutputError: the file cannot be written.
    """
    if not records:
        raise EvaluationError("there is no run to compare", "give run folders")
    title = " · ".join(record.title for record in records)
    body = [
        f"<h1>{len(records)} runs side by side</h1>",
        card("Numbers", _numbers(records)),
        _common_map(records),
    ]
    body += [
        f'<h1 style="margin-top:28px">{escape(record.title)}</h1>'
        + strips(record)
        + timings(record)
        for record in records
    ]
    return _write(path, page(title, "".join(body)))


def load_record(directory: Path) -> RunRecord:
    """The record of a finished run folder (`flow3r run --output DIRECTORY`), with its
    `summary.json` where present.

    Raises:
        EvaluationError: the folder holds no record.
    """
    record = RunRecord.load(directory / RECORD_FILE)
    summary = directory / "summary.json"
    if not record.summary and summary.exists():
        cure = "give the folder that `flow3r run` or `replay` wrote"
        try:
            known = Summary.model_validate(read_mapping(summary, EvaluationError, cure))
        except ValidationError as error:
            raise EvaluationError(f"{summary}: {first_fault(error)}", cure) from error
        record.summary = known.model_dump(exclude_unset=True)
    return record


def _try_compare(record: RunRecord) -> tuple[Comparison | None, str]:
    if record.reference is None:
        return None, ""
    try:
        return compare(record, record.reference), ""
    except EvaluationError as error:
        return None, f"Not compared: {error}"


def _head(record: RunRecord) -> str:
    summary = record.summary
    model = summary.get("model", "unknown model")
    licence = summary.get("weights_license") or "not stated; check the licence"
    return (
        f"<h1>{escape(record.title)}</h1>"
        f'<p class="muted">model <b>{escape(str(model))}</b> · licence of the weights: '
        f"{escape(str(licence))} · "
        f"{escape(str(summary.get('device', 'unknown device')))}</p>"
        f'<p class="muted">camera {escape(camera_in_words(summary.get("camera") or {}))}</p>'
    )


def _problems(record: RunRecord) -> str:
    """What to know before trusting the run: what, when, why, and what to try."""
    items = "".join(
        f'<li class="{"bad" if problem.grave else "warn"}"><b>{escape(problem.what)}</b>'
        + (f": {escape(problem.why)}" if problem.why else "")
        + (f"<br>Try: {escape(problem.remedy)}" if problem.remedy else "")
        + "</li>"
        for problem in problems_of(record.summary)
    )
    if not items:
        return ""
    return f'<section class="card problems"><h2>Problems</h2><ul>{items}</ul></section>'


def _tiles(record: RunRecord, comparison: Comparison | None) -> str:
    summary = record.summary
    dropped = sum(summary.get("frames_dropped", {}).values())
    frames_in = summary.get("frames_in", len(record))
    lost = _lost_share(record)
    tiles = [
        tile(f"{len(record)} / {frames_in}", "frames estimated", "bad" if not len(record) else "")
    ]
    if comparison:
        metrics = comparison.metrics
        share = metrics["ate_rmse"] / max(metrics["path_length"], 1e-12)
        tiles.append(
            tile(
                f"{metrics['ate_rmse']:.3g} m",
                f"ATE, {100 * share:.2g} % of {metrics['path_length']:.3g} m",
            )
        )
        tiles.append(tile(f"{metrics['rpe_trans_rmse']:.3g} m", "RPE translation, a frame"))
        tiles.append(tile(f"{metrics['rpe_rot_deg_rmse']:.3g}°", "RPE rotation, a frame"))
    elif len(record):
        length = f"{path_length(record.poses):.4g} {unit_of(summary)}"
        tiles.append(tile(length, "path length"))
    if "fps" in summary:
        tiles.append(tile(f"{summary['fps']:.1f}", "frames a second"))
    latency = summary.get("latency_ms") or {}
    if latency.get("p50") is not None:
        tiles.append(
            tile(
                f"{latency['p50']:.0f} ms",
                f"latency, p95 {latency.get('p95', float('nan')):.0f} ms",
            )
        )
    tiles.append(tile(str(dropped), "frames dropped", "warn" if dropped else ""))
    if "seams" in summary:
        refused = summary.get("seams_refused", 0)
        tiles.append(
            tile(f"{refused} / {summary['seams']}", "seams refused", "warn" if refused else "")
        )
    tiles.append(tile(f"{lost:.0%}", "of the frames lost", "bad" if lost else ""))
    if len(segments := record.history.segments()) > 1:
        tiles.append(tile(str(len(segments)), "segments, units unrelated", "warn"))
    if summary.get("scale_state"):
        tiles.append(tile(str(summary["scale_state"]), "scale"))
    if summary.get("peak_rss_mb"):
        tiles.append(tile(f"{summary['peak_rss_mb']:.0f} MB", "peak memory"))
    return f'<div class="tiles">{"".join(tiles)}</div>'


def _checks(rows: Sequence[tuple[str, str, str]]) -> str:
    """What was checked, what came out, how to read it."""
    note = (
        "Checks without truth ask whether the run agrees with the pictures and with "
        "itself. Pixels are those of the matching grid."
    )
    return card(
        "Is it any good?",
        table(["check", "result", "how to read it"], [list(row) for row in rows]),
        note,
    )


def _counts(record: RunRecord) -> str:
    rows: list[list[str]] = []
    for key in ("frames_dropped", "tracking_states", "pose_sources"):
        rows += [
            [key.replace("_", " "), str(name), str(count)]
            for name, count in (record.summary.get(key) or {}).items()
        ]
    return card("Counted", table(["", "", "frames"], rows)) if rows else ""


def _happened(record: RunRecord) -> str:
    """Where and why the pose was not trusted, longest first; the new segments."""
    spans = [span for span in record.history.spans if span.state is not TrackingState.TRACKING]
    rows = [
        [f"{span.first} to {span.last}", span.state.value, str(span.segment), span.reason]
        for span in sorted(spans, key=lambda span: -span.frames)[:MAX_SPANS]
    ]
    note = f"The {MAX_SPANS} longest of {len(spans)} stretches." if len(spans) > MAX_SPANS else ""
    head = ["frames", "state", "segment", "reason"]
    return card("Not tracking", table(head, rows), note) if rows else ""


def _lost_share(record: RunRecord) -> float:
    lost = sum(span.frames for span in record.history.spans if not span.state.has_pose)
    return lost / max(len(record), 1)


def _settings(record: RunRecord) -> str:
    def block(name: str, tree: dict[str, Any]) -> str:
        text = yaml.safe_dump(json.loads(json.dumps(tree, default=str)), sort_keys=False)
        return f"<details><summary>{name}</summary><pre>{escape(text)}</pre></details>"

    return card(
        "Settings and summary",
        block("settings", record.settings) + block("summary", record.summary),
    )


def _numbers(records: Sequence[RunRecord]) -> str:
    rows = []
    for record in records:
        summary = record.summary
        comparison, _ = _try_compare(record)
        metrics = comparison.metrics if comparison else {}
        rows.append(
            [
                record.title,
                str(summary.get("model", "")),
                f"{len(record)} / {summary.get('frames_in', len(record))}",
                f"{summary['fps']:.1f}" if "fps" in summary else "",
                f"{metrics['ate_rmse']:.4g}" if metrics else "",
                f"{metrics['rpe_trans_rmse']:.4g}" if metrics else "",
                f"{metrics['rpe_rot_deg_rmse']:.3g}" if metrics else "",
                f"{summary.get('seams_refused', '')} / {summary.get('seams', '')}",
                f"{_lost_share(record):.0%}" if len(record) else "",
                str(summary.get("scale_state", "")),
            ]
        )
    head = [
        "run",
        "model",
        "frames",
        "fps",
        "ATE (m)",
        "RPE (m)",
        "RPE (deg)",
        "seams refused",
        "lost",
        "scale",
    ]
    return table(head, rows)


def _common_map(records: Sequence[RunRecord]) -> str:
    filled = [record for record in records if len(record)]
    if not filled:
        return ""
    base = next((record.reference for record in filled if record.reference is not None), None)
    target = base or filled[0].trajectory()
    ways: list[tuple[str, Float64, str]] = (
        [("ground truth", target.poses[:, :3, 3], color(6))] if base else []
    )
    left_out = []
    for index, record in enumerate(filled):
        try:
            est_ids, ref_ids = associate(record.trajectory(), target)
            alignment = align_poses(record.poses[est_ids], target.poses[ref_ids], "sim3")
            ways.append((record.title, alignment.apply(record.poses)[:, :3, 3], color(index)))
        except EvaluationError as error:
            left_out.append(f"{record.title}: {error}")
    to_first = np.linalg.inv(target.poses[0])
    lines = [
        Line(
            name,
            (way @ to_first[:3, :3].T + to_first[:3, 3])[:, 0],
            (way @ to_first[:3, :3].T + to_first[:3, 3])[:, 2],
            shade,
            width=2.0,
        )
        for name, way, shade in ways
    ]
    chart = line_chart(lines, "right", "forward", width=900, height=520, equal=True)
    return card(
        "Ways from above",
        legend([(line.color, line.label) for line in lines]) + chart,
        escape("; ".join(left_out)),
    )


def _write(path: Path, text: str) -> Path:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({cause_of(error)})",
            "check the folder and the space on the disk",
        ) from error
    return path
