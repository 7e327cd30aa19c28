"""`python -m test.cases CASES [--only WORD] [--keep DIR]`: makes every input, runs the product on
it, prints what is right and what was got; exit code 1 when something is wrong."""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from test.cases.table import CASES, ELSEWHERE, Case
from test.cases.workshop import Workshop


def try_case(case: Case, shop: Workshop) -> tuple[str, bool]:
    """What was got, and whether it is right; a maker that fails, or a command whose output cannot
    be judged, is wrong."""
    try:
        folder = shop.made(case.maker) if case.maker else shop.cases / "small"
        path = folder / case.name
        if not case.here:
            return case.check(shop, path)
        with contextlib.chdir(path.parent):
            return case.check(shop, Path(path.name))
    except Exception as error:
        return f"{type(error).__name__}: {error}", False


def rows(cases: Path, folder: Path, only: str) -> Iterator[tuple[str, str, str, bool]]:
    """(input, right value, got, ok) of every case whose name contains `only`."""
    shop = Workshop(cases, folder)
    for case in CASES:
        name = f"{case.maker or 'small'}/{case.name}"
        if only in name:
            got, right = try_case(case, shop)
            yield name, case.right, got, right


def main() -> int:
    """Print the table; 1 when anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m test.cases", description=__doc__)
    parser.add_argument("cases", type=Path, help="../shared/cases")
    parser.add_argument("--only", default="", help="inputs whose name contains this")
    parser.add_argument("--keep", type=Path, help="folder for inputs and outputs, kept")
    asked = parser.parse_args()
    if not (asked.cases / "README.md").is_file():
        parser.error(f"{asked.cases} does not hold the cases")
    wrong = tried = 0
    with contextlib.ExitStack() as stack:
        folder = asked.keep or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        for name, right, got, good in rows(asked.cases, folder.resolve(), asked.only):
            print(f"{'ok' if good else 'WRONG':<6}{name:<44} | {right:<42} | {got}", flush=True)
            tried += 1
            wrong += not good
    for maker, why in ELSEWHERE.items():
        print(f"{'-':<6}{maker:<44} | not tried here: {why}")
    print(f"{tried - wrong} of {tried} right")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
