"""Gates of the controlled experiment: twice better or not, and whether labels for everything
help."""

from __future__ import annotations

from typing import Any

import pytest

from flow3r_ros.training.experiment_gates import FEWEST_SEEDS, gates_of, separating

START = {
    "rotation_deg": 2.0,
    "rotation_deg_identity": 4.0,
    "epe_head": 1.0,
    "epe_zero": 8.0,
}


@pytest.mark.parametrize(
    ("change", "passed"),
    [
        ({}, [True, True]),
        ({"rotation_deg": 2.01}, [False, True]),
        ({"epe_head": 4.01}, [True, False]),
        ({"epe_head": float("nan")}, [True, False]),
    ],
)
def test_the_start_must_be_twice_better_than_what_costs_nothing(
    change: dict[str, float], passed: list[bool]
) -> None:
    assert [gate.passed for gate in gates_of({**START, **change})] == passed


def test_a_score_that_is_missing_passes_no_gate() -> None:
    assert [gate.passed for gate in gates_of({"rotation_deg": 0.0})] == [False, False]


def _rows(metric: str, control: list[float], baseline: list[float]) -> list[dict[str, Any]]:
    named = {"3d-sup++": control, "3d-sup": baseline}
    return [{"row": name, metric: value} for name, values in named.items() for value in values]


@pytest.mark.parametrize(
    ("metric", "better", "worse"),
    [("abs_rel", 0.2, 0.3), ("epe_geometry", 1.0, 2.0), ("rta_15", 0.6, 0.5)],
)
def test_the_control_separates_where_each_of_its_seeds_is_better_than_each_of_the_others(
    metric: str, better: float, worse: float
) -> None:
    control, baseline = [better] * FEWEST_SEEDS, [worse] * FEWEST_SEEDS
    assert separating(_rows(metric, control, baseline)) == [metric]
    assert separating(_rows(metric, baseline, control)) == []
    assert separating(_rows(metric, [*control, worse], baseline)) == []
    assert separating(_rows(metric, control[1:], baseline)) == []
