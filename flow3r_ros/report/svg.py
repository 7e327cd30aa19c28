"""Small charts as inline SVG: crisp, light, readable in dark and light, no plotting library at run
time.

Colours are CSS variables (`--c0` ... `--c7`, `--ink`, `--grid`) with a fixed colour as fallback, so
a chart also stands alone in a file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Float64

PALETTE = ("#2563eb", "#ea580c", "#0d9488", "#9333ea", "#dc2626", "#ca8a04", "#64748b", "#db2777")
INK, GRID = "var(--ink, #475569)", "var(--grid, #cbd5e1)"
MAX_POINTS = 1500
LEFT, RIGHT = 76, 16
"""margins of a chart: room for tick labels at the size that telephones show them"""


@dataclass(frozen=True)
class Line:
    """One curve: `x`, `y` float `[N]` (NaN breaks the curve)."""

    label: str
    x: Float64
    y: Float64
    color: str
    dashed: bool = False
    width: float = 1.6


@dataclass(frozen=True)
class Mark:
    """One labelled dot."""

    label: str
    x: float
    y: float
    color: str


@dataclass(frozen=True)
class Bar:
    """One horizontal bar with an optional lighter extension (say p50 and p95)."""

    label: str
    value: float
    extent: float
    text: str


def color(index: int) -> str:
    """The palette's colour `index`, as a CSS variable with its fallback."""
    return f"var(--c{index % len(PALETTE)}, {PALETTE[index % len(PALETTE)]})"


def line_chart(
    lines: Sequence[Line],
    x_label: str,
    y_label: str,
    width: int = 720,
    height: int = 200,
    equal: bool = False,
    marks: Sequence[Mark] = (),
    log: bool = False,
    frame: Line | None = None,
    timeline: tuple[float, float] | None = None,
) -> str:
    """Curves over a common pair of axes; `interactive.js` lets them be zoomed.

    Args:
        lines: the curves.
        x_label: name and unit of the x axis.
        y_label: name and unit of the y axis.
        width: of the drawing, pixels.
        height: of the drawing, pixels.
        equal: one unit has the same length on both axes (maps).
        marks: labelled dots.
        log: logarithmic y axis where the values span a decade or more; values that are not positive
            are left out.
        frame: the curve that alone sets the limits of the axes; others are cut off at them.
        timeline: x is the time since the first picture, from and to these seconds, and is zoomed
            with all others that say so.
    """
    left, right, top, bottom = LEFT, RIGHT, 12, 44
    log = log and _spans_a_decade(lines)
    shown = (
        [
            Line(line.label, line.x, _log(line.y), line.color, line.dashed, line.width)
            for line in lines
        ]
        if log
        else list(lines)
    )
    framing = [frame] if frame else shown
    x_low, x_high = timeline or _range([line.x for line in framing], 0.08 if equal else 0.0)
    y_low, y_high = _range([line.y for line in framing], 0.06)
    inner_w, inner_h = width - left - right, height - top - bottom
    if equal:
        unit = max((x_high - x_low) / inner_w, (y_high - y_low) / inner_h)
        x_mid, y_mid = (x_low + x_high) / 2, (y_low + y_high) / 2
        x_low, x_high = x_mid - unit * inner_w / 2, x_mid + unit * inner_w / 2
        y_low, y_high = y_mid - unit * inner_h / 2, y_mid + unit * inner_h / 2

    def at(x: float, y: float) -> tuple[float, float]:
        return left + (x - x_low) / (x_high - x_low) * inner_w, top + (y_high - y) / (
            y_high - y_low
        ) * inner_h

    box = (left, top, inner_w, inner_h)
    chart = {"box": box, "x": (x_low, x_high), "y": (y_low, y_high), "log": log, "equal": equal}
    parts = [
        _open(width, height, f"{y_label} over {x_label}", {**chart, "timeline": bool(timeline)})
    ]
    parts.append('<g class="grid">')
    for tick in _ticks(x_low, x_high, max(2, inner_w // 90)):
        x = at(tick, 0)[0]
        parts.append(
            f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + inner_h}" '
            f'stroke="{GRID}" stroke-width="0.6"/>'
        )
        parts.append(_text(x, top + inner_h + 17, _number(tick), "middle"))
    for tick in _ticks(y_low, y_high, max(4, inner_h // 32)):
        y = at(0, tick)[1]
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + inner_w}" y2="{y:.1f}" '
            f'stroke="{GRID}" stroke-width="0.6"/>'
        )
        parts.append(_text(left - 6, y + 3.5, f"{10.0**tick:.2g}" if log else _number(tick), "end"))
    parts.append("</g>")
    parts.append(_plot(box, "".join(_path(line, at) for line in shown)))
    parts += _marks(marks, at, box)
    parts.append(_text(left + inner_w / 2, height - 5, x_label, "middle"))
    middle = top + inner_h / 2
    label = _text(12, middle, y_label, "middle")
    parts.append(label.replace("<text ", f'<text transform="rotate(-90 12 {middle:.1f})" ', 1))
    parts.append("</svg>")
    return "".join(parts)


def bar_chart(bars: Sequence[Bar]) -> str:
    """Horizontal bars on one scale, as a table that fits any width; the extension is drawn lighter
    behind each bar."""
    longest = max((max(bar.extent, bar.value) for bar in bars), default=1.0) or 1.0
    rows = "".join(
        f'<tr><td>{escape(bar.label)}</td><td class="bar">'
        f'<i style="width:{100 * max(bar.extent, bar.value) / longest:.2f}%"></i>'
        f'<b style="width:{100 * bar.value / longest:.2f}%"></b></td>'
        f"<td>{escape(bar.text)}</td></tr>"
        for bar in bars
    )
    return f'<table class="bars">{rows}</table>'


def strip_chart(
    spans: Sequence[tuple[float, float, str, str]],
    x_high: float,
    width: int = 720,
    height: int = 18,
) -> str:
    """One row of coloured spans (from, to, colour, name) over 0..x_high; the name is the
    tooltip."""
    inner = width - LEFT - RIGHT
    scale = inner / max(x_high, 1e-9)
    box = (LEFT, 0, inner, height)
    chart = {"box": box, "x": (0.0, x_high), "y": (0.0, 1.0), "timeline": True, "bare": True}
    rects = "".join(
        f'<rect x="{LEFT + start * scale:.1f}" y="0" '
        f'width="{max((end - start) * scale, 0.8):.1f}" height="{height}" fill="{fill}">'
        f"<title>{escape(name)} {start:.1f}..{end:.1f} s</title></rect>"
        for start, end, fill, name in spans
    )
    return _open(width, height, "states over time", chart) + _plot(box, rects) + "</svg>"


def standalone(chart: str, keys: Sequence[tuple[str, str]]) -> str:
    """A chart as a file of its own: plain colours, white ground, its legend inside."""
    words = []
    for index, (label, shade) in enumerate(keys):
        y = 26 + 16 * index
        words.append(
            f'<rect x="470" y="{y - 9}" width="10" height="10" fill="{shade}"/><text '
            f'x="486" y="{y}" fill="#334155">{label}</text>'
        )
    ground = '<rect width="100%" height="100%" fill="#ffffff"/>'
    chart = (
        re.sub(r"(<svg[^>]*>)", lambda match: match.group(1) + ground, chart, count=1).removesuffix(
            "</svg>"
        )
        + "".join(words)
        + "</svg>"
    )
    return re.sub(r"var\(--[a-z0-9]+, (#[0-9a-f]{6})\)", r"\1", chart)


def _open(width: int, height: int, label: str, chart: dict[str, Any]) -> str:
    data = escape(json.dumps(chart), quote=True)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(label, quote=True)}" data-chart="{data}" '
        f'font-family="system-ui, sans-serif" font-size="11">'
    )


def _plot(box: tuple[int, int, int, int], curves: str) -> str:
    """What is drawn inside the axes, cut off at them."""
    x, y, width, height = box
    return (
        f'<svg x="{x}" y="{y}" width="{width}" height="{height}" viewBox="{x} {y} {width} '
        f'{height}" preserveAspectRatio="none"><g class="curves">{curves}</g></svg>'
    )


def _marks(
    marks: Sequence[Mark], at: Callable[[float, float], tuple[float, float]], box: Sequence[int]
) -> list[str]:
    """Dots with their labels, each beside its dot where no other label is."""
    taken: list[tuple[float, float, float, float]] = []
    parts: list[str] = []
    for mark in marks:
        x, y = at(mark.x, mark.y)
        long = 9.0 * len(mark.label) + 10
        places = [(sign, rise) for rise in (-6.0, 16.0, -24.0, 34.0) for sign in (1, -1)]
        boxes = [
            (x if sign > 0 else x - long, y + rise - 13, x + long if sign > 0 else x, y + rise + 4)
            for sign, rise in places
        ]
        free = [
            index
            for index, (a, b, c, d) in enumerate(boxes)
            if a >= box[0] and c <= box[0] + box[2]
            and not any(a < g and e < c and b < h and f < d for e, f, g, h in taken)
        ]  # fmt: skip
        chosen = free[0] if free else 0
        taken.append(boxes[chosen])
        sign, rise = places[chosen]
        label = _text(7 * sign, rise, mark.label, "start" if sign > 0 else "end")
        parts.append(
            f'<g class="mark" data-x="{mark.x:.6g}" data-y="{mark.y:.6g}" '
            f'transform="translate({x:.1f} {y:.1f})"><circle r="4" fill="{mark.color}"/>{label}</g>'
        )
    return parts


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{INK}">{escape(text)}</text>'
    )


def _path(line: Line, at: Callable[[float, float], tuple[float, float]]) -> str:
    pen, commands = False, []
    for index in _thin(len(line.x)):
        x, y = float(line.x[index]), float(line.y[index])
        if not (np.isfinite(x) and np.isfinite(y)):
            pen = False
            continue
        px, py = at(x, y)
        commands.append(f"{'L' if pen else 'M'}{px:.1f} {py:.1f}")
        pen = True
    dash = ' stroke-dasharray="5 4"' if line.dashed else ""
    return (
        f'<path d="{"".join(commands)}" fill="none" stroke="{line.color}" '
        f'stroke-width="{line.width}" stroke-linejoin="round" '
        f'vector-effect="non-scaling-stroke"{dash}>'
        f"<title>{escape(line.label)}</title></path>"
    )


def _thin(count: int) -> NDArray[np.int64]:
    return np.linspace(0, count - 1, min(count, MAX_POINTS)).astype(np.int64)


def _spans_a_decade(lines: Sequence[Line]) -> bool:
    positive = (
        np.concatenate([line.y[np.isfinite(line.y) & (line.y > 0)] for line in lines])
        if lines
        else np.zeros(0)
    )
    return bool(len(positive) and positive.max() >= 10 * positive.min())


def _log(values: Float64) -> Float64:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(values > 0, np.log10(values), np.nan)


def _range(series: Sequence[Float64], margin: float) -> tuple[float, float]:
    finite = (
        np.concatenate([values[np.isfinite(values)] for values in series])
        if series
        else np.zeros(0)
    )
    if not len(finite):
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    if high - low < 1e-9 * max(1.0, abs(high)):
        pad = 0.5 * max(abs(high), 1e-3)
        return low - pad, high + pad
    return low - margin * (high - low), high + margin * (high - low)


def _ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers (1, 2, 5 times a power of ten) inside the range."""
    rough = (high - low) / max(count, 1)
    power = 10.0 ** np.floor(np.log10(rough))
    step = float(
        next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    )
    first = int(np.ceil(low / step - 1e-9))
    return [i * step for i in range(first, int(np.floor(high / step + 1e-9)) + 1)]


def _number(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.4g}"
