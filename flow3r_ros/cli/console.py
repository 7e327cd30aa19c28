"""What commands share: options, one JSON object or aligned lines as their result, progress that
suits a terminal or a log."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flow3r_ros.errors import printable

if TYPE_CHECKING:
    from flow3r_ros.config import Config


class OneLine(logging.Formatter):
    """Log lines without control characters from outside (`errors.printable`)."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The message alone, escaped; a traceback, where there is one, follows as it is."""
        return printable(record.getMessage())


def set_up_logging() -> None:
    """Log to stderr, from INFO on."""
    handler = logging.StreamHandler()
    handler.setFormatter(OneLine())
    logging.basicConfig(level=logging.INFO, handlers=[handler])


AsJson = Annotated[bool, typer.Option("--json", help="print one JSON object and nothing else")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", help="YAML file of settings (docs/parameters.md)")
]
Topic = Annotated[str | None, typer.Option("--topic", help="image topic, when the bag has several")]
Model = Annotated[str | None, typer.Option("--model", help="model name or folder")]
Refine = Annotated[
    bool,
    typer.Option(
        "--refine",
        help="adjust all keyframes together afterwards; writes trajectory_map.tum (extra `refine`)",
    ),
]


def settings_of(config: Path | None, model: str | None) -> Config:
    """The settings of a file, or the defaults, with the model that was named instead of theirs."""
    from flow3r_ros.config import load_config

    return load_config(config, {"model.name": model} if model else None)


def print_result(result: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object, or aligned `key value` lines."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    width = max((len(key) for key in result), default=0)
    for key, value in result.items():
        print(f"{printable(key):<{width}}  {printable(value)}")


@contextmanager
def progress(what: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A status line on a terminal, nothing when JSON was asked for, plain lines on stderr
    otherwise."""
    if quiet:
        yield lambda _: None
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: console.print(f"{what}: {text}", highlight=False, markup=False)
        return
    with console.status(what) as status:
        yield lambda text: status.update(f"{what}: {text}")
