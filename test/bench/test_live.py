"""The live suites, around an engine that takes no time: a row for each camera, listener and
machine; a curve of memory."""

from __future__ import annotations

import pytest

from flow3r_ros.bench import live
from flow3r_ros.bench.suites import render_suites, run_suites


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The canned node, few pictures, short windows."""
    monkeypatch.setattr(live, "NODE", "ours")
    monkeypatch.setattr(live, "PICTURES", 5)
    monkeypatch.setattr(live, "RATES", (20.0,))
    monkeypatch.setattr(live, "SETTLE_S", 0.1)
    monkeypatch.setattr(live, "WINDOW_S", 0.5)
    monkeypatch.setattr(live, "WARM_UP", 1)
    monkeypatch.setattr(
        live, "LISTENERS", {who: live.LISTENERS[who] for who in ("nobody", "every output")}
    )


def test_the_rate_table_has_a_row_for_each_case_and_idles_where_nobody_listens() -> None:
    result = live.bench_rates()
    table = result["table"]
    assert [(row["machine"], row["listener"]) for row in table] == [
        (machine, listener)
        for machine in ("as it is", "loaded")
        for listener in ("nobody", "every output")
    ]
    nobody, everything = table[:2]
    assert float(nobody["estimated /s"]) < 0.7 * float(nobody["received /s"])
    assert float(everything["estimated /s"]) > float(nobody["estimated /s"])
    assert everything["tf age p95"].endswith(" ms")
    assert not nobody["tf age p95"]
    assert all(row["mostly"] == "tracking" for row in table)
    page = render_suites(run_suites({"rates": lambda: result}))
    assert "| as it is | nobody | 20 Hz |" in page


def test_the_memory_curve_has_twelve_moments() -> None:
    result = live.measure_memory(2.0)
    assert len(result["table"]) == 12
    estimated = [int(row["images estimated"]) for row in result["table"]]
    assert estimated[-1] > estimated[0]
    (row,) = result["rows"]
    assert row["median"] > 50
    assert "within 2 %" in row["note"]
