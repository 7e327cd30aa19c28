"""Numbers that stand in several documents are the same number."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
CLIPS = {
    "demo clip": "demo_clip",
    "7-Scenes RedKitchen": "sevenscenes_redkitchen",
    "KITTI curve": "kitti_curve_51",
}
"""name in the README -> name in docs/results.md"""
UNITS = {"mm": 1e-3, "cm": 1e-2, "m": 1.0}


def text_of(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def rows(text: str) -> list[list[str]]:
    """The cells of the rows of every table."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip(" *†") for cell in line.strip("|").split("|")] for line in lines]


def metres(cell: str) -> float:
    value, unit = re.findall(r"([\d.]+) (mm|cm|m)\b", cell)[0]
    return float(value) * UNITS[unit]


def test_the_measured_table_says_what_the_results_say() -> None:
    ours = {row[0].partition(",")[0]: row for row in rows(text_of("README.md"))}
    page = rows(text_of("docs/results.md"))
    starts = [index for index, row in enumerate(page) if row[1:2] == ["ATE"]]
    results = {page[index][0].partition(" (")[0]: index for index in starts}
    for name, clip in CLIPS.items():
        ate, speed = page[results[clip]], page[results[clip] + 3]
        assert speed[1] == "frames a second"
        for cell, found in zip(ours[name][1:3], ate[2:4], strict=True):
            assert metres(cell) == pytest.approx(float(found.strip("*")), rel=0.04), name
        assert ours[name][3:5] == speed[2:4]
    assert '--8<-- "README.md:measured"' in text_of("docs/good_at.md"), "not a copy"


def test_the_manifest_says_of_the_network_what_the_results_say() -> None:
    known = yaml.safe_load(text_of("models/flow3r_nano/manifest.yaml"))["metrics"]
    held_out = known["held_out_synthetic"]
    stated = {
        "depth AbsRel": "abs_rel",
        "depth delta < 1.25": "delta_1.25",
        "depth AbsRel, pictures alone": "abs_rel_no_evidence",
        "rotation between frames, median error (deg)": "rotation_deg",
        "direction of motion, median error (deg)": "direction_deg",
        "flow EPE of the flow head (px)": "epe_head",
        "flow EPE of points and poses (px)": "epe_geometry",
    }
    results = {row[0]: row[1] for row in rows(text_of("docs/results.md"))}
    for row, key in stated.items():
        assert float(results[row]) == pytest.approx(held_out[key], rel=0.01), row
    assert not any("ate" in key for key in known), "of the odometry: docs/results.md alone"
