"""The gates of the controlled experiment: what passes, what fails, and what cannot be judged."""

from __future__ import annotations

import pytest

from flow3r_ros.training.experiment_gates import gates_of, separating

START = {"rotation_deg": 1.0, "rotation_deg_identity": 2.0, "epe_head": 2.0, "epe_zero": 8.0}


@pytest.mark.parametrize(
    ("change", "verdicts"),
    [
        ({}, [True, True]),
        ({"rotation_deg": 1.01}, [False, True]),
        ({"epe_head": 4.01}, [True, False]),
        ({"epe_head": float("nan")}, [True, False]),
    ],
)
def test_a_start_must_be_twice_better_than_what_costs_nothing(
    change: dict[str, float], verdicts: list[bool]
) -> None:
    assert [gate.passed for gate in gates_of(START | change)] == verdicts


def test_a_score_that_is_missing_passes_nothing() -> None:
    assert not any(gate.passed for gate in gates_of({}))


def test_a_gate_says_its_numbers_and_its_verdict() -> None:
    rotation, head = map(str, gates_of(START | {"rotation_deg": 1.6}))
    assert "1.600 deg, identity's 2.000 deg (1.25 times better, needed 2): **failed**" in rotation
    assert head.endswith("(4.00 times better, needed 2): passed")


def _rows(name: str, **scores: list[float]) -> list[dict[str, object]]:
    seeds = range(len(next(iter(scores.values()))))
    return [
        {"row": name, "seed": seed, **{metric: values[seed] for metric, values in scores.items()}}
        for seed in seeds
    ]


def test_the_control_separates_where_its_worst_seed_beats_the_best_of_the_baseline() -> None:
    rows = _rows("3d-sup", rta_15=[0.1, 0.2, 0.3], abs_rel=[0.5, 0.4, 0.6])
    rows += _rows("3d-sup++", rta_15=[0.4, 0.31, 0.5], abs_rel=[0.3, 0.41, 0.2])
    assert separating(rows) == ["rta_15"]
    worse = _rows("3d-sup", abs_rel=[0.1] * 3) + _rows("3d-sup++", abs_rel=[0.9] * 3)
    assert separating(worse) == []


def test_two_seeds_separate_nothing() -> None:
    rows = _rows("3d-sup", abs_rel=[0.5, 0.5]) + _rows("3d-sup++", abs_rel=[0.1, 0.1])
    assert separating(rows) == []
