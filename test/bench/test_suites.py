"""The bench page shows what was measured, and a suite that cannot run does not take the others with
it."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.bench import odometry as bench_odometry
from flow3r_ros.bench.plane_scene import CAMERA, PlanePredictor, plane_picture
from flow3r_ros.bench.suites import Timing, measure_in_turns, row, run_suites, write_performance
from flow3r_ros.errors import ModelError, OutputError
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.flow import geometric_flow, warp
from flow3r_ros.types import Frame, Window


def test_cases_are_measured_in_turns() -> None:
    order: list[str] = []

    timings = measure_in_turns(
        {"first": lambda: order.append("first"), "second": lambda: order.append("second")},
        repeats=5,
        warmup=1,
    )
    assert order == ["first", "second"] * 6
    assert all(timing.p10 <= timing.median <= timing.p90 for timing in timings.values())
    half, whole = Timing(2.0, 1.0, 3.0), Timing(4.0, 4.0, 4.0)
    assert row("ours", half, "theirs", whole)["ratio"] == 2.0


def test_percentiles() -> None:
    timing = Timing.of([float(value) for value in range(101)])
    assert (timing.p10, timing.median, timing.p90) == (10, 50, 90)


def test_the_page_shows_rows_facts_and_errors(tmp_path: Path) -> None:
    def broken() -> dict[str, object]:
        raise ModelError("no such model", "train one")

    result = run_suites(
        {
            "good": lambda: {
                "rows": [row("step", Timing(2.0, 1.0, 3.0), "old", Timing(4.0, 4.0, 4.0))],
                "frames": 7,
                "work": {"gflop": 2.5},
            },
            "bad": broken,
        }
    )
    page = write_performance(tmp_path / "performance.md", result).read_text()
    assert "| step | 2 ms | 1 to 3 | old | 4 ms | 2.00 |" in page
    assert "- frames: 7" in page
    assert "- work: gflop 2.5" in page
    assert "no such model; train one" in page
    assert "not measured yet" in page or result["machine"]["gpu"] != "none"
    with pytest.raises(OutputError):
        write_performance(tmp_path / "no" / "page.md", result)


def test_the_stand_in_network_and_its_pictures_agree() -> None:
    pictures = [plane_picture(i) for i in (0, 12)]
    frames = tuple(
        Frame(i, i, picture, CAMERA) for i, picture in zip((0, 12), pictures, strict=True)
    )
    prediction = PlanePredictor().predict(Window(frames, (0, 12)))
    small = scaled(CAMERA, 168, 126)
    relative = np.linalg.inv(prediction.poses[0]) @ prediction.poses[1]
    depth = np.ascontiguousarray(prediction.local_points[0, ..., 2])
    flow, covisible = geometric_flow(depth, relative, small, small)
    first, second = (
        cv2.resize(picture, (168, 126), interpolation=cv2.INTER_AREA).astype(np.float32)
        for picture in pictures
    )
    error = np.abs(warp(second, flow) - first).mean(axis=-1)[covisible]
    assert np.median(error) < 0.3 * np.median(np.abs(second - first))


def test_the_odometry_suite_lists_every_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    measured = bench_odometry.video_memory
    monkeypatch.setattr(bench_odometry, "video_memory", lambda frames: measured(frames // 15))
    result = bench_odometry.bench_odometry(frames=14)
    names = [entry["name"] for entry in result["rows"]]
    assert "a frame, rectified, followed and verified" in names
    assert {"stage track", "stage depth", "stage network"} <= set(names)
    assert result["seams_refused"] == 0
    memory = next(entry for entry in result["rows"] if "40 frames" in entry["name"])
    assert memory["baseline"] == "4 frames"
    assert 20 < memory["baseline_median"] < memory["median"] * 1.1
