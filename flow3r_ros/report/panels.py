"""The panels of a report, each made from a RunRecord: maps of the way, picture strips, curves over
time, stage timings."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.geometry.trajectory_alignment import align_poses, associate
from flow3r_ros.geometry.trajectory_errors import measure_trajectory
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.row import SOURCES, STATES
from flow3r_ros.report.scene import ways_of
from flow3r_ros.report.style import card, legend
from flow3r_ros.report.svg import Bar, Line, Mark, bar_chart, color, line_chart, strip_chart
from flow3r_ros.report.words import unit_of
from flow3r_ros.types import Float32, Float64, TrackingState, UInt8

STATE_COLORS = {
    TrackingState.INITIALIZING: color(6),
    TrackingState.TRACKING: color(2),
    TrackingState.DEGRADED: color(5),
    TrackingState.LOST: color(4),
    TrackingState.RELOCALIZING: color(3),
}


@dataclass(frozen=True)
class Comparison:
    """An estimate beside its ground truth: metrics, centres `[M, 3]` in the reference's world,
    error `[M]` metres over time; `way` `[N, 3]` are the centres of all frames of the record."""

    metrics: dict[str, Any]
    stamps_ns: Any
    estimate: Float64
    reference: Float64
    errors: Float64
    way: Float64


def compare(record: RunRecord, reference: Trajectory) -> Comparison:
    """Align the estimate by Sim(3) and measure it. Raises EvaluationError where that is
    impossible."""
    trajectory = record.trajectory()
    metrics = measure_trajectory(trajectory, reference, align="sim3")
    est_ids, ref_ids = associate(trajectory, reference)
    truth = reference.poses[ref_ids]
    alignment = align_poses(trajectory.poses[est_ids], truth, "sim3")
    # Both are shown from the first camera of the reference, so that the map has "forward" up
    # whatever the world of the reference is.
    to_first = np.linalg.inv(truth[0])
    estimate, centres, way = (
        poses[:, :3, 3] @ to_first[:3, :3].T + to_first[:3, 3]
        for poses in (
            alignment.apply(trajectory.poses[est_ids]),
            truth,
            alignment.apply(record.poses),
        )
    )
    return Comparison(
        metrics,
        trajectory.stamps_ns[est_ids],
        estimate,
        centres,
        np.linalg.norm(estimate - centres, axis=1),
        way,
    )


def maps(record: RunRecord, comparison: Comparison | None) -> str:
    """The way seen from above and from the side."""
    unit = "m" if comparison else unit_of(record.summary)
    segments = ways_of(record, comparison.way if comparison else record.poses[:, :3, 3])
    ways = [(way.name, way.centres, color(way.color), False) for way in segments]
    if comparison:
        ways.insert(0, ("ground truth", comparison.reference, color(6), True))

    def view(across: int, up: int, flip: float, x_label: str, y_label: str) -> str:
        lines = [
            Line(name, way[:, across], flip * way[:, up], shade, dashed, 2.0)
            for name, way, shade, dashed in ways
        ]
        marks = [
            mark
            for line in lines[-len(segments) :]
            for mark in _ends(line, "" if len(segments) == 1 else f" {line.label[8:]}")
        ]
        return line_chart(lines, x_label, y_label, width=560, height=420, equal=True, marks=marks)

    keys = [(shade, f"{name} (dashed)" if dashed else name) for name, _, shade, dashed in ways]
    top = (
        f"<figure>{view(0, 2, 1.0, f'right ({unit})', f'forward ({unit})')}<figcaption>from "
        "above</figcaption></figure>"
    )
    side = (
        f"<figure>{view(2, 1, -1.0, f'forward ({unit})', f'up ({unit})')}<figcaption>from "
        "the side</figcaption></figure>"
    )
    note = "In the axes of the first camera"
    note += (
        ", after Sim(3) alignment to the ground truth."
        if comparison
        else "; the start is the origin."
    )
    return card("Trajectory", legend(keys) + f'<div class="pair">{top}{side}</div>', note)


def _ends(line: Line, suffix: str) -> list[Mark]:
    """Where a way starts and ends."""
    known = np.flatnonzero(np.isfinite(line.x) & np.isfinite(line.y))
    return (
        [
            Mark(f"{name}{suffix}", float(line.x[index]), float(line.y[index]), color(shade))
            for name, shade, index in (("start", 2, known[0]), ("end", 4, known[-1]))
        ]
        if len(known)
        else []
    )


def strips(record: RunRecord) -> str:
    """Sampled frames: image, depth, confidence, moving pixels."""
    thumbnails = record.thumbnails
    if not thumbnails:
        return ""
    valid = np.concatenate(
        [
            thumbnail.depth[np.isfinite(thumbnail.depth) & (thumbnail.depth > 0)]
            for thumbnail in thumbnails
        ]
    )
    near, far = (
        (float(limit) for limit in np.percentile(valid, [2, 98])) if len(valid) else (0.1, 1.0)
    )
    start = int(record.stamps_ns[0])
    rows = {
        "image": [_image(thumbnail.rgb, ".jpg") for thumbnail in thumbnails],
        "depth": [
            _image(depth_picture(thumbnail.depth, near, far), ".jpg") for thumbnail in thumbnails
        ],
        "confidence": [_image(_gray(thumbnail.confidence), ".jpg") for thumbnail in thumbnails],
        "moving": [
            _image(_overlay(thumbnail.rgb, thumbnail.moving), ".jpg") for thumbnail in thumbnails
        ],
    }
    cells = ['<span class="name"></span>']
    cells += [
        f'<span class="time">{(thumbnail.stamp_ns - start) / 1e9:.2f} s</span>'
        for thumbnail in thumbnails
    ]
    for name, images in rows.items():
        cells.append(f'<span class="name">{name}</span>')
        cells += [
            f'<img alt="{name} of frame {thumbnail.index}" src="{source}" '
            f'data-time="{(thumbnail.stamp_ns - start) / 1e9:.3f}">'
            for thumbnail, source in zip(thumbnails, images, strict=True)
        ]
    columns = f"72px repeat({len(thumbnails)}, minmax(96px, 1fr))"
    unit = unit_of(record.summary)
    ramp = _image(_colours(np.linspace(0, 1, 140, dtype=np.float32)[None].repeat(8, 0)), ".png")
    key = (
        f'depth {near:.3g} {unit}<img class="ramp" alt="near to far" src="{ramp}">{far:.3g} '
        f"{unit}; black: no depth"
    )
    return card(
        "What it saw",
        f'<div class="strip" style="grid-template-columns:{columns}">{"".join(cells)}</div>',
        f"{key}. Confidence: white is sure. Moving pixels are tinted red.",
    )


def over_time(record: RunRecord, comparison: Comparison | None) -> str:
    """States, pose sources and the curves that tell how sure the odometry was."""
    seconds = record.column("stamp_s").astype(np.float64)
    if len(seconds) < 2:
        return ""
    states, sources = record.column("state").astype(int), record.column("source").astype(int)
    end = max(float(seconds.max()), 1e-3)
    state_row = strip_chart(
        [(a, b, STATE_COLORS[STATES[v]], STATES[v].value) for a, b, v in _runs(seconds, states)],
        end,
        width=540,
    )
    source_row = strip_chart(
        [(a, b, color(v), SOURCES[v].value) for a, b, v in _runs(seconds, sources)], end, width=540
    )
    seen_states = [
        (STATE_COLORS[STATES[v]], f"{STATES[v].value} {np.mean(states == v):.0%}")
        for v in sorted(set(states))
    ]
    seen_sources = [
        (color(v), f"{SOURCES[v].value} {np.mean(sources == v):.0%}") for v in sorted(set(sources))
    ]
    parts = [
        f"<figure>{legend(seen_states)}{state_row}<figcaption>tracking state</figcaption></figure>"
    ]
    parts.append(
        f"<figure>{legend(seen_sources)}{source_row}<figcaption>where the pose came "
        "from</figcaption></figure>"
    )

    def curve(caption: str, y_label: str, *lines: Line, log: bool = False) -> None:
        if any(np.isfinite(line.y).any() for line in lines):
            keys = legend([(line.color, line.label) for line in lines]) if len(lines) > 1 else ""
            chart = line_chart(
                lines, "time (s)", y_label, width=540, height=180, log=log, timeline=(0.0, end)
            )
            parts.append(f"<figure>{keys}{chart}<figcaption>{caption}</figcaption></figure>")

    def column(name: str, index: int = 0, label: str = "") -> Line:
        """Over the frames that have the number: seams are those of keyframes alone."""
        values = record.column(name).astype(np.float64)
        known = np.isfinite(values)
        return Line(label or name, seconds[known], values[known], color(index))

    if comparison:
        at = (comparison.stamps_ns - record.stamps_ns[0]) / 1e9
        curve(
            "distance to the ground truth after Sim(3) alignment",
            "error (m)",
            Line("error", at, comparison.errors, color(4)),
        )
    unit = unit_of(record.summary)
    curve("median depth", f"depth ({unit})", column("depth_median"))
    curve("scale: seam scale of each window", "seam scale", column("seam_scale", 3))
    curve("relative 1-sigma of the declared scale", "scale sigma", column("scale_sigma", 3))
    curve(
        "1-sigma of the position, from the covariance",
        f"sigma ({unit})",
        column("position_sigma", 1),
        log=True,
    )
    refused = np.count_nonzero(record.column("seam_accepted") == 0)
    curve(
        f"seam residual, relative to depth; {refused} refused",
        "residual",
        column("seam_residual", 0),
        log=True,
    )
    curve(
        "mean confidence, share of moving pixels, share of valid depth",
        "share",
        column("confidence", 0),
        column("moving", 4),
        column("depth_valid", 2, "valid depth"),
    )
    note = "Pointing at a moment shows it in every curve, the picture next to it, and the place. "
    note += "Pinch, or Ctrl and the wheel, zoom all of them; drag moves, double click goes back."
    return card("Over time", f'<div class="pair">{"".join(parts)}</div>', note)


def timings(record: RunRecord) -> str:
    """Every stage: time a frame over the run, and p50 and p95 of when it ran."""
    bars = []
    for stage, values in record.stage_ms.items():
        p50, p95 = np.percentile(np.array(values), [50, 95])
        each = float(np.sum(values)) / max(len(record), 1)
        text = f"{each:.2f} ms a frame; {p50:.1f} ms when it runs (p95 {p95:.1f})"
        bars.append(Bar(stage, each, float(p50), text))
    over_run = record.summary.get("stage_ms_per_frame") or {}
    for stage in over_run.keys() - record.stage_ms.keys():  # what is no frame's: reading, the map
        each = float(over_run[stage])
        bars.append(Bar(stage, each, each, f"{each:.2f} ms a frame"))
    if not bars:
        return ""
    return card(
        "Time a frame",
        bar_chart(sorted(bars, key=lambda bar: -bar.value)),
        "Solid: a frame, over the whole run; light: median of the frames it runs for. Stages of "
        "keyframes and the map run in threads beside the frames, refinement after them.",
    )


def depth_picture(depth: Float32, near: float, far: float) -> UInt8:
    """Depth `[h, w]` as RGB: logarithmic, near is bright red, far is blue, invalid is black."""
    with np.errstate(divide="ignore", invalid="ignore"):
        level = (np.log(depth) - np.log(near)) / max(float(np.log(far / near)), 1e-6)
    valid = np.isfinite(level)
    picture = _colours(np.where(valid, np.clip(level, 0, 1), 0).astype(np.float32))
    picture[~valid] = 0
    return picture


def _colours(level: Float32) -> UInt8:
    bgr = cv2.applyColorMap((255 - 255 * level).astype(np.uint8), cv2.COLORMAP_TURBO)
    return np.ascontiguousarray(bgr[..., ::-1]).astype(np.uint8)


def _gray(level: Float32) -> UInt8:
    return np.repeat(
        (255 * np.clip(np.nan_to_num(level), 0, 1)).astype(np.uint8)[..., None], 3, axis=-1
    )


def _overlay(rgb: UInt8, mask: Any) -> UInt8:
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None].repeat(3, axis=-1)
    picture = (0.75 * gray + 30).astype(np.uint8)
    picture[mask] = (0.35 * gray[mask] + 0.65 * np.array([239, 68, 68])).astype(np.uint8)
    return picture


def _image(rgb: UInt8, kind: str) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, 84] if kind == ".jpg" else []
    _, data = cv2.imencode(kind, np.ascontiguousarray(rgb[..., ::-1]), options)
    mime = "image/jpeg" if kind == ".jpg" else "image/png"
    return f"data:{mime};base64,{base64.b64encode(data.tobytes()).decode()}"


def _runs(seconds: Float64, values: Any) -> list[tuple[float, float, int]]:
    """Spans of equal values: (from, to, value)."""
    starts = np.r_[0, np.flatnonzero(np.diff(values)) + 1]
    ends = np.r_[starts[1:], len(values) - 1]
    return [
        (float(seconds[a]), float(seconds[b]), int(values[a]))
        for a, b in zip(starts, ends, strict=True)
    ]
