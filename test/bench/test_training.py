"""The benchmark suites print what they compare with, and labelling stays near a plain OpenCV
loop."""

from __future__ import annotations

import pytest

from flow3r_ros.bench import training as bench


def test_label_suite_stands_beside_opencv_and_one_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_ray_rate", lambda unit, clip, settings, workers: 10.0 * workers)
    result = bench.bench_label()
    first, second = result["rows"]
    assert first["baseline"] == "two OpenCV DIS calls in a loop"
    assert first["ratio"] > 0.4
    assert second["ratio"] == pytest.approx(2.0)
    assert result["ray_speedup_2_workers"] == pytest.approx(2.0)


def test_the_memory_row_compares_a_long_index_with_one_clip(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(bench, "LONG_INDEX", 60)
    row = bench._memory_row()
    assert row["unit"] == "MB"
    assert row["ratio"] == pytest.approx(1.0, abs=0.2)
