"""The GPU bench measures what it says; a small network on the CPU goes through the same code."""

from __future__ import annotations

import pytest
import torch

from flow3r_ros.bench.network_gpu import Traffic, bench_gpu
from test.network.factories import COLUMNS, ROWS, tiny_config


def measured(device: str) -> dict[str, object]:
    return bench_gpu(torch.device(device), tiny_config(), (COLUMNS, ROWS), repeats=2, ceiling=256)


@pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
        ),
    ],
)
def test_a_streaming_step_is_less_work_than_the_whole_window(device: str) -> None:
    result = measured(device)
    step, full = result["gpu_step"], result["gpu_full"]
    assert isinstance(step, dict)
    assert isinstance(full, dict)
    for key in ("gflop", "gbyte"):
        assert 0 < step[key] < full[key]
    assert 0 < full["share_of_matmul_peak"] < 1
    assert ("peak_mb" in full) == (device == "cuda")
    rows = result["rows"]
    assert isinstance(rows, list)
    assert all(
        row["ratio"] == row["baseline_median"] / row["median"] and "p95" in row["note"]
        for row in rows
    )
    assert "window 8, 56x42" in rows[0]["name"]


def test_bytes_are_those_that_operators_touch() -> None:
    a, b = torch.zeros(10, 20), torch.zeros(20, 5)
    with Traffic() as traffic:
        a @ b
    assert traffic.bytes == 4 * (200 + 100 + 50)
    with Traffic() as traffic:
        a.T.reshape(2, 10, 10)[0].expand(3, 10, 10)
    assert traffic.bytes <= 2 * 4 * 200
    with Traffic() as traffic:
        torch.zeros(1).expand(1000).sum()
    assert traffic.bytes <= 12
