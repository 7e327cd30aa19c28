"""The sections about trust show what was measured and say what was not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flow3r_ros.evaluation.claims import position_errors, rotation_agreement
from flow3r_ros.evaluation.clip_runs import Clip, Contender
from flow3r_ros.evaluation.consistency import confident_lies, consistency_of
from flow3r_ros.evaluation.faults import Verdict
from flow3r_ros.evaluation.scoreboard_trust import trust_sections
from test.evaluation.claim_samples import bent, honest_claims

OURS = Contender("ours", "ours", "nano")


def clips(tmp_path: Path) -> list[Clip]:
    for name in ("room", "torn"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "groundtruth.tum").write_text("0 0 0 0 0 0 0 1\n")
    return [Clip(tmp_path / "room"), Clip(tmp_path / "torn"), Clip(tmp_path / "bare")]


def judged() -> dict[str, Any]:
    claims = bent(honest_claims(frames=100), 50, degrees=30.0)
    return {
        "lies": confident_lies(claims),
        "nees": consistency_of(claims),
        "rotation": rotation_agreement(claims),
        "position": position_errors(claims),
    }


def test_every_section_is_filled(tmp_path: Path) -> None:
    confidence = {"error": 0.31, "claimed": 0.99, "right": 0.68, "pixels": 1234}
    results = {
        ("room", "ours", 0): {"judged": judged(), "confidence": confidence},
        ("torn", "ours", 0): {"error": "no such model"},
    }
    verdicts = [
        Verdict("clean", "nothing: a clean control", True, alarms=0.01),
        Verdict("cut", "noticed", False, None, False, 12, True, None),
        Verdict("drop", "noticed, or tracked right", True, None, True, 0),
        Verdict("black", "noticed", True, 1, False, 0, True, 4),
        Verdict("nan", "noticed", False, error="ValueError: nan"),
    ]
    suite = {
        "rows": [{"clip": "room", "verdict": vars(verdict)} for verdict in verdicts]
        + [{"clip": "torn", "error": "too short"}],
        "passed": 2,
        "faults": 4,
        "held against": {"room": "truth"},
    }
    rooms = {"rows": [{"name": "synthetic rooms: error", "calibration": confidence}]}
    page = trust_sections(
        clips(tmp_path),
        OURS,
        results,
        {"suites": {"faults": suite}},
        {"suites": {"rooms": rooms}},
    )
    for line in (
        "| clean | ✓ 1.0% false alarms |",
        "| cut | ✗ 12 lies, never back |",
        "| drop | ✓ right |",
        "| black | ✓ noticed 1, back 4 |",
        "| nan | ✗ ValueError: nan |",
        "**2 of 4 faults are handled.**",
        "torn: too short",
        "| room | 10.0% (10 of 100) | 100% |",
        "| torn | no such model |",
        "| room | 0.31 | 0.99 | 0.68 | 1234 |",
        "| synthetic rooms | 0.31 |",
    ):
        assert line in page, line
    assert "| clip | 1 frame | 10 frames | 50 frames |" in page
    assert "bare" not in page


def test_what_was_not_measured_is_said(tmp_path: Path) -> None:
    page = trust_sections(clips(tmp_path)[:1], OURS, {}, {"error": "cut short"}, {"error": "no"})
    assert "Not measured: cut short." in page
    assert page.count("| room | not measured |") == 2
    assert "synthetic rooms: no" in page
    nothing = trust_sections([], OURS, {}, {}, {})
    assert nothing.count("No clip with truth was present.") == 2
    assert "No clip with depth was present." in nothing
