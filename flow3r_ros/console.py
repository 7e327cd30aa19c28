"""What every command prints: one JSON object or aligned lines, and progress that suits a terminal or a log."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer

AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]


def print_result(result: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object, or aligned `key value` lines."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    width = max((len(key) for key in result), default=0)
    for key, value in result.items():
        print(f"{key:<{width}}  {value}")


@contextmanager
def progress(what: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A status line on a terminal, nothing when JSON was asked for, plain lines on stderr otherwise."""
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: console.print(f"{what}: {text}", highlight=False)
        return
    with console.status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")
