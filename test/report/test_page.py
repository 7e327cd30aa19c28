"""Reports are self-contained, complete, and say what they could not compare."""

from __future__ import annotations

import re
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError, OutputError
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.report.page import load_record, write_comparison, write_report
from flow3r_ros.report.record import RunRecord
from test.evaluation.factories import make_record


def read(path: Path) -> str:
    text = path.read_text()
    for svg in re.findall(r"<svg xmlns.*?</svg>.*?</svg>", text, flags=re.S):
        ElementTree.fromstring(svg)
    addresses = set(re.findall(r'(?:src|href)="([^"]{0,40})', text))
    assert all(address.startswith("data:") for address in addresses)
    assert not re.search(r"\bnan\b", re.sub(r"base64,[^\"]*", "", text).lower())
    return text


def test_a_report_holds_every_part(tmp_path: Path) -> None:
    record = make_record(frames=60)
    text = read(write_report(tmp_path / "report.html", record))
    for part in (
        "from above",
        "from the side",
        "depth",
        "confidence",
        "moving",
        "tracking state",
        "network",
        "corrupt_image",
        "settings",
        "Not tracking",
        "20 to 24",
    ):
        assert part in text
    for fact in ("60 / 62", "3 / 59", "flow3r_nano", "Apache-2.0", "window: 4"):
        assert fact in text
    assert record.reference is not None
    ate = evaluate_trajectory(record.trajectory(), record.reference)["ate_rmse"]
    assert f"{ate:.3g} m" in text
    assert text.count("<img") >= 4 * len(record.thumbnails)


def test_a_reference_that_does_not_fit_is_said(tmp_path: Path) -> None:
    record = make_record(frames=20)
    assert record.reference is not None
    record.reference = Trajectory(record.reference.stamps_ns + 10**15, record.reference.poses)
    text = read(write_report(tmp_path / "report.html", record))
    assert "Not compared: only 0 stamps" in text


@pytest.mark.parametrize("frames", [0, 1, 2])
def test_a_run_of_almost_nothing_still_reports(tmp_path: Path, frames: int) -> None:
    record = RunRecord("empty") if not frames else make_record(frames=frames, with_reference=False)
    assert "frames estimated" in read(write_report(tmp_path / "report.html", record))


def test_titles_are_escaped(tmp_path: Path) -> None:
    text = read(
        write_report(
            tmp_path / "report.html", make_record(frames=5, title="<script>alert(1)</script>")
        )
    )
    assert "<script>alert" not in text


def test_several_runs_stand_side_by_side(tmp_path: Path) -> None:
    records = [
        make_record(frames=30, title="with window 4"),
        make_record(frames=30, title="with window 8"),
    ]
    text = read(write_comparison(tmp_path / "compare.html", records))
    assert text.count("with window 4") >= 2
    assert "with window 8" in text
    with pytest.raises(EvaluationError):
        write_comparison(tmp_path / "none.html", [])


def test_a_run_folder_is_read_back(tmp_path: Path) -> None:
    record = make_record(frames=12)
    record.save(tmp_path / "record.npz")
    again = load_record(tmp_path)
    np.testing.assert_array_equal(again.poses, record.poses)
    with pytest.raises(EvaluationError):
        load_record(tmp_path / "nowhere")


def test_an_unwritable_place_is_a_typed_error(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        write_report(tmp_path / "no" / "report.html", make_record(frames=5))
