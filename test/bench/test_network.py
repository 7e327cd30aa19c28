"""The suite runs on any model and its rows say what they stand beside."""

from __future__ import annotations

from pathlib import Path

from flow3r_ros.bench.network import bench_network
from test.network.factories import tiny_folder


def test_rows_carry_spread_and_baseline(tmp_path: Path) -> None:
    folder = tiny_folder(tmp_path / "tiny", evidence=True)
    result = bench_network(str(folder.path), repeats=2)
    first = result["rows"][0]
    assert first["p10"] <= first["median"] <= first["p90"]
    assert first["ratio"] == first["baseline_median"] / first["median"]
    assert 0 < result["streaming_step_gflop"] < result["plain_forward_gflop"]
    assert 0 < result["plain_forward_share_of_peak"] < 1
    assert result["input"] == "56x42"
