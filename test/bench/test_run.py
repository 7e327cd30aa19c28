"""The run suite drives the public path and the classical odometry and states the ratio."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow3r_ros.bench.run import measure_run
from flow3r_ros.errors import InputError
from test.odometry.oracle import Oracle
from test.offline.factory import clip_folder, small_clip


def test_both_odometries_are_measured_in_turns(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip", small_clip(6))
    result = measure_run(Oracle(small_clip(6)), tmp_path / "clip", None, turns=1)
    speed, latency = result["rows"]
    assert result["frames"] == 6
    assert speed["ratio"] == pytest.approx(speed["median"] / speed["baseline_median"])
    assert latency["median"] > 0


def test_a_missing_clip_is_an_input_error(tmp_path: Path) -> None:
    with pytest.raises(InputError):
        measure_run(Oracle(small_clip(6)), tmp_path / "nowhere", None)
