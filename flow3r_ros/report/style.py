"""The page around a report: one style sheet for light and dark, one script, no external address."""

from __future__ import annotations

from functools import cache
from html import escape
from pathlib import Path

STYLE = """
:root { --paper:#f8fafc; --card:#ffffff; --text:#0f172a; --muted:#64748b; --line:#e2e8f0;
  --ink:#475569; --grid:#dbe3ec;
  --c0:#2563eb; --c1:#ea580c; --c2:#0d9488; --c3:#9333ea; --c4:#dc2626; --c5:#ca8a04;
  --c6:#64748b; --c7:#db2777; }
@media (prefers-color-scheme: dark) { :root { --paper:#0b1120; --card:#131c2e; --text:#e2e8f0;
  --muted:#94a3b8; --line:#24304a;
  --ink:#a3b1c6; --grid:#26334d; --c0:#60a5fa; --c1:#fb923c; --c2:#2dd4bf; --c3:#c084fc;
  --c4:#f87171; --c5:#facc15; --c6:#94a3b8;
  --c7:#f472b6; } }
* { box-sizing: border-box; }
body { margin:0; background:var(--paper); color:var(--text);
  font:15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width:1180px; margin:0 auto; padding:28px 20px 60px; }
h1 { font-size:26px; margin:0; letter-spacing:-.01em; overflow-wrap:anywhere; }
h2 { font-size:16px; margin:0 0 10px; }
p { margin:4px 0; } .muted, figcaption, .note { color:var(--muted); font-size:13px; }
.card { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:16px 18px; margin-top:16px; }
.tiles { display:grid; grid-template-columns:repeat(auto-fill, minmax(150px, 1fr)); gap:12px;
  margin-top:16px; }
.tile { background:var(--card); border:1px solid var(--line); border-radius:10px;
  padding:10px 14px; }
.tile b { display:block; font-size:19px; white-space:nowrap; font-weight:650;
  font-variant-numeric:tabular-nums; letter-spacing:-.01em; }
.tile span { color:var(--muted); font-size:12.5px; } .tile.bad b { color:var(--c4); }
  .tile.warn b { color:var(--c5); }
.pair { display:grid; grid-template-columns:repeat(auto-fit, minmax(min(420px, 100%), 1fr));
  gap:16px; }
figure > svg, .card > svg { display:block; width:100%; height:auto; } figure { margin:0 0 10px; }
svg[data-chart] { touch-action:pan-y; cursor:crosshair; }
svg .cursor { stroke:var(--c4); stroke-width:1; display:none; pointer-events:none; }
canvas.scene { display:block; width:100%; height:min(520px, 70vh); touch-action:pan-y; cursor:grab;
  border-radius:8px; }
.problems ul { margin:0; padding-left:18px; } .problems li { margin:4px 0; }
  .problems li::marker { color:var(--c5); } .problems li.bad::marker { color:var(--c4); }
.bars td { white-space:nowrap; } .bars td.bar { width:55%; position:relative; height:26px; }
.bars i, .bars b { position:absolute; left:0; top:6px; height:14px; border-radius:2px;
  background:var(--c0); } .bars i { opacity:.28; }
.scroll { overflow-x:auto; }
.strip { display:grid; gap:4px; overflow-x:auto; align-items:center; } .strip img { width:100%;
  display:block; border-radius:4px; cursor:pointer; }
.strip img.now { outline:3px solid var(--c4); outline-offset:-3px; }
.strip .name { color:var(--muted); font-size:12.5px; } .strip .time { color:var(--muted);
  font-size:12px; text-align:center; }
.legend { display:flex; flex-wrap:wrap; gap:4px 16px; font-size:12.5px; color:var(--muted);
  margin:2px 0 8px; }
.legend i { display:inline-block; width:12px; height:12px; border-radius:3px; margin-right:6px;
  vertical-align:-1px; }
.ramp { display:inline-block; width:140px; height:10px; border-radius:5px; vertical-align:0;
  margin:0 8px; }
table { border-collapse:collapse; width:100%; font-size:13.5px; font-variant-numeric:tabular-nums; }
th { text-align:left; color:var(--muted); font-weight:500; } td, th { padding:5px 10px 5px 0;
  border-bottom:1px solid var(--line); }
pre { overflow-x:auto; font-size:12.5px; line-height:1.45; margin:8px 0 0; }
  summary { cursor:pointer; }
@media (max-width: 700px) { main { padding:16px 10px 40px; } .card { padding:12px; }
  svg text { font-size:16px; } .tiles { grid-template-columns:repeat(2, minmax(0, 1fr)); }
  .tile b { font-size:17px; } .bars td { white-space:normal; } .bars td.bar { width:30%; }
  canvas.scene { height:min(340px, 60vh); } }
"""


@cache
def _script() -> str:
    return Path(__file__).with_name("interactive.js").read_text(encoding="utf-8")


def page(title: str, body: str) -> str:
    """A complete HTML document."""
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><meta '
        'name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body><main>{body}</main>"
        f"<script>{_script()}</script></body></html>\n"
    )


def card(title: str, body: str, note: str = "") -> str:
    """One titled section."""
    extra = f'<p class="note">{note}</p>' if note else ""
    return f'<section class="card"><h2>{escape(title)}</h2>{body}{extra}</section>'


def tile(value: str, label: str, mood: str = "") -> str:
    """One headline number; `mood` is empty, `warn` or `bad`."""
    return f'<div class="tile {mood}"><b>{escape(value)}</b><span>{escape(label)}</span></div>'


def legend(entries: list[tuple[str, str]]) -> str:
    """Colour keys: (colour, name)."""
    keys = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for colour, name in entries
    )
    return f'<div class="legend">{keys}</div>'


def table(head: list[str], rows: list[list[str]]) -> str:
    """A plain table of text cells."""
    header = "".join(f"<th>{escape(cell)}</th>" for cell in head)
    lines = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    filled = f"<table><thead><tr>{header}</tr></thead><tbody>{lines}</tbody></table>"
    return f'<div class="scroll">{filled}</div>'
