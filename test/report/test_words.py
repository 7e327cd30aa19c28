"""A summary in words: metres only where they were measured, an assumed focal length called so, and
what went wrong with what to try."""

from __future__ import annotations

from typing import Any

import pytest

from flow3r_ros.report.words import (
    camera_in_words,
    problems_of,
    stage_rows,
    summary_rows,
    unit_of,
)

SUMMARY: dict[str, Any] = {
    "frames_in": 100,
    "frames_estimated": 97,
    "frames_dropped": {"corrupt_image": 3},
    "tracking_states": {"tracking": 90, "lost": 7},
    "pose_sources": {"pnp": 97},
    "lost_spans": [{"first": 40, "last": 46, "reason": "the corners do not confirm the pose"}],
    "segments": [{"first": 0, "last": 99, "reason": "start"}],
    "scale_state": "relative",
    "seams": 6,
    "seams_refused": 4,
    "notes": ["bag_0.mcap: torn at byte 500 of 900"],
    "camera": {"source": "assumed", "model": "none", "fx": 576.0, "fy": 576.0, "why": "no file"},
    "stage_ms": {"track": 30.0, "bundle": 40.0},
    "stage_ms_per_frame": {"track": 30.0, "bundle": 2.0},
    "fps": 12.3456,
}


@pytest.mark.parametrize(
    ("state", "unit"),
    [("metric", "m"), ("anchored", "units"), ("relative", "units"), (None, "units")],
)
def test_metres_only_where_they_were_measured(state: str | None, unit: str) -> None:
    assert unit_of({"scale_state": state}) == unit
    said = dict(summary_rows({**SUMMARY, "scale_state": state}))["scale"]
    assert ("not in metres" in said) == (unit == "units")


def test_what_nobody_knew_is_called_assumed() -> None:
    assert camera_in_words(SUMMARY["camera"]).startswith(
        "ASSUMED, not known: no distortion, fx 576"
    )
    assert camera_in_words({"source": "file", "why": "x"}) == "from file (x)"
    assert "estimated from the motion" in camera_in_words({"source": "estimated"})


def test_problems_say_what_to_try_the_gravest_first() -> None:
    problems = problems_of(SUMMARY)
    assert problems[0].grave
    assert problems[0].what == "lost from frame 40 to 46"
    assert "camera.json" in problems[0].remedy
    said = [problem.what for problem in problems]
    assert "bag_0.mcap: torn at byte 500 of 900" in said
    assert "3 frames were dropped" in said
    assert "the focal length is assumed, not known" in said
    assert "4 of 10 answers of the network were refused" in said
    assert not problems_of({})
    wrong = {"camera": {"misfit": "the lens is 9% longer", "focal": 1.09}}
    assert [problem.what for problem in problems_of(wrong)] == ["the lens is 9% longer"]
    assert not problems_of({"camera": {"misfit": "", "focal": 1.01}})


def test_rows_have_sensible_digits_and_every_stage() -> None:
    rows = dict(summary_rows(SUMMARY))
    assert rows["frames"] == "97 of 100 estimated; dropped: corrupt_image 3"
    assert rows["lost"] == "7 frames"
    assert rows["speed"].startswith("12.3 frames/s")
    assert stage_rows(SUMMARY) == [("track", "30.00", "30.00"), ("bundle", "2.00", "40.00")]
    assert summary_rows({}), "a summary of another version still prints"
