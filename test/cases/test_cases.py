"""The small inputs of `../shared/cases` are right; `python -m test.cases` tries all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from test.cases.__main__ import try_case
from test.cases.table import CASES, Case
from test.cases.workshop import Workshop
from test.conftest import shared_path

SMALL = [case for case in CASES if case.maker in ("", "trajectories")]


@pytest.mark.parametrize("case", SMALL, ids=lambda case: f"{case.maker or 'small'}/{case.name}")
def test_small_case(case: Case, tmp_path: Path) -> None:
    got, right = try_case(case, Workshop(shared_path("cases"), tmp_path))
    assert right, f"right is: {case.right}; got: {got}"
