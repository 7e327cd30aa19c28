"""Small charts as inline SVG: crisp, light, readable in dark and light, no plotting library at run
time.

Colours are CSS variables (`--c0` ... `--c7`, `--ink`, `--grid`) with a fixed colour as fallback, so
a chart also stands alone in a file.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from html import escape

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Float64

PALETTE = ("#2563eb", "#ea580c", "#0d9488", "#9333ea", "#dc2626", "#ca8a04", "#64748b", "#db2777")
INK, GRID = "var(--ink, #475569)", "var(--grid, #cbd5e1)"
MAX_POINTS = 1500


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
) -> str:
    """Curves over a common pair of axes.

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
    """
    left, right, top, bottom = 58, 14, 12, 38
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
    x_low, x_high = _range([line.x for line in framing], 0.0 if not equal else 0.08)
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

    parts = [_open(width, height, f"{y_label} over {x_label}")]
    for tick in _ticks(x_low, x_high, max(2, inner_w // 90)):
        x = at(tick, 0)[0]
        parts.append(
            f'<line x1="{x:.1f}" y1="{top}" x2="{x:.1f}" y2="{top + inner_h}" '
            f'stroke="{GRID}" stroke-width="0.6"/>'
        )
        parts.append(_text(x, top + inner_h + 14, _number(tick), "middle"))
    for tick in _ticks(y_low, y_high, max(4, inner_h // 32)):
        y = at(0, tick)[1]
        parts.append(
            f'<line x1="{left}" y1="{y:.1f}" x2="{left + inner_w}" y2="{y:.1f}" '
            f'stroke="{GRID}" stroke-width="0.6"/>'
        )
        parts.append(_text(left - 6, y + 3.5, f"{10.0**tick:.2g}" if log else _number(tick), "end"))
    curves = "".join(_path(line, at) for line in shown)
    window = (
        f'<svg x="{left}" y="{top}" width="{inner_w}" height="{inner_h}" viewBox="{left} '
        f'{top} {inner_w} {inner_h}">'
    )
    parts.append(f"{window}{curves}</svg>" if frame else curves)
    for mark in marks:
        x, y = at(mark.x, mark.y)
        parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{mark.color}"/>')
        parts.append(_text(x + 7, y - 5, mark.label, "start"))
    parts.append(_text(left + inner_w / 2, height - 6, x_label, "middle"))
    middle = top + inner_h / 2
    label = _text(12, middle, y_label, "middle")
    parts.append(label.replace("<text ", f'<text transform="rotate(-90 12 {middle:.1f})" ', 1))
    parts.append("</svg>")
    return "".join(parts)


def bar_chart(bars: Sequence[Bar], unit: str) -> str:
    """Horizontal bars on one scale; the extension is drawn lighter behind each bar."""
    left, right, step, width = 120, 130, 26, 1100
    height = step * len(bars) + 8
    longest = max((max(bar.extent, bar.value) for bar in bars), default=1.0) or 1.0
    scale = (width - left - right) / longest
    parts = [_open(width, height, f"bars in {unit}")]
    for row, bar in enumerate(bars):
        y = 4 + row * step
        parts.append(_text(left - 8, y + 15, bar.label, "end"))
        for length, opacity in ((max(bar.extent, bar.value), 0.28), (bar.value, 1.0)):
            parts.append(
                f'<rect x="{left}" y="{y + 3}" width="{length * scale:.1f}" height="16" '
                f'rx="2" fill="{color(0)}" opacity="{opacity}"/>'
            )
        parts.append(
            _text(left + max(bar.extent, bar.value) * scale + 8, y + 15, bar.text, "start")
        )
    parts.append("</svg>")
    return "".join(parts)


def strip_chart(
    spans: Sequence[tuple[float, float, str, str]],
    x_high: float,
    width: int = 720,
    height: int = 18,
) -> str:
    """One row of coloured spans (from, to, colour, name) over 0..x_high; the name is the
    tooltip."""
    left, right = 58, 14
    scale = (width - left - right) / max(x_high, 1e-9)
    parts = [_open(width, height, "states over time")]
    for start, end, fill, name in spans:
        parts.append(
            f'<rect x="{left + start * scale:.1f}" y="0" '
            f'width="{max((end - start) * scale, 0.8):.1f}" height="{height}" fill="{fill}">'
            f"<title>{escape(name)} {start:.1f}..{end:.1f} s</title></rect>"
        )
    parts.append("</svg>")
    return "".join(parts)


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


def _open(width: int, height: int, label: str) -> str:
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        f'role="img" aria-label="{escape(label, quote=True)}" '
        f'font-family="system-ui, sans-serif" font-size="11">'
    )


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
        f'stroke-width="{line.width}" stroke-linejoin="round"{dash}>'
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
