"""What commands share: options and their short forms, one JSON object or aligned lines as a result,
what was written and where, log lines and progress that suit a terminal or a pipe."""

from __future__ import annotations

import json
import logging
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import yaml

from flow3r_ros.errors import InputError, printable
from flow3r_ros.storage import ADDRESS, Location

if TYPE_CHECKING:
    from flow3r_ros.config import Config

NOT_STORED = ("http://", "https://", "ray://")
"""beginnings of addresses that are no files"""
INLINE = 60
"""longest mapping in characters that is printed on one line"""


@dataclass(frozen=True)
class Flags:
    """What may stand anywhere on the command line: `--debug` shows the traceback of an error,
    `--quiet` leaves out progress and everything below a warning."""

    debug: bool = False
    quiet: bool = False


def split_flags(arguments: Sequence[str]) -> tuple[Flags, list[str]]:
    """The flags, wherever they stand, and the other arguments; what follows `--ros-args` is ROS's
    own and stays as it is."""
    end = arguments.index("--ros-args") if "--ros-args" in arguments else len(arguments)
    ours, rest = arguments[:end], arguments[end:]
    debug, quiet = {"--debug"}, {"--quiet", "-q"}
    flags = Flags(bool(debug & {*ours}), bool(quiet & {*ours}))
    return flags, [each for each in ours if each not in debug | quiet] + list(rest)


def refuse_addresses(arguments: Sequence[str]) -> None:
    """InputError for a file or folder in object storage where a command takes local ones: as a path
    it would be looked for, or made, under a local folder called `s3:`.

    `label` and `train` take addresses everywhere, `run` and `replay` as input."""
    command, *others = [*arguments, ""]
    if command in ("label", "train"):
        return
    inputs = command in ("run", "replay")
    for before, argument in zip([command, *others], others, strict=False):
        value = argument.partition("=")[2] if argument.startswith("--") else argument
        if not ADDRESS.match(value) or value.lower().startswith(NOT_STORED):
            continue
        if inputs and argument == value and not before.startswith("-"):
            continue
        raise InputError(
            f"{value}: files and folders are local ones here",
            "copy it (aws s3 cp --recursive, gcloud storage cp -r) or mount it (rclone mount) and "
            "give the path; addresses are for label, train and the inputs of run and replay",
        )


class OneLine(logging.Formatter):
    """Log lines without control characters from outside (`errors.printable`)."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """The message alone, escaped; a traceback, where there is one, follows as it is."""
        return printable(record.getMessage())


class PresentStderr(logging.Handler):
    """Writes to what `sys.stderr` is at that moment: while a progress bar is shown that is the
    bar's own, which puts the line above itself instead of into itself."""

    def emit(self, record: logging.LogRecord) -> None:
        """One line; a stream that is gone is no reason to stop."""
        with suppress(OSError, ValueError):
            sys.stderr.write(f"{self.format(record)}\n")
            sys.stderr.flush()


def set_up_logging(quiet: bool = False) -> None:
    """Log to stderr: from INFO on, from WARNING on when `quiet`."""
    handler = PresentStderr()
    handler.setFormatter(OneLine())
    logging.basicConfig(handlers=[handler])
    logging.getLogger().setLevel(logging.WARNING if quiet else logging.INFO)
    logging.getLogger("numexpr").setLevel(logging.WARNING)  # pandas' helper counts its threads


AsJson = Annotated[bool, typer.Option("--json", "-j", help="print one JSON object, nothing else")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file of settings (docs/parameters.md)")
]
Changes = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        "-s",
        metavar="KEY=VALUE",
        help="one setting, such as engine.window=6, over --config; repeat for several",
    ),
]
Topic = Annotated[
    str | None,
    typer.Option(
        "--topic", "-t", help="image topic, when the bag has several; camera of a LeRobot dataset"
    ),
]
Episode = Annotated[
    int | None, typer.Option(min=0, help="episode of a LeRobot dataset that has several")
]
Model = Annotated[str | None, typer.Option("--model", "-m", help="model name or folder")]
Every = Annotated[int, typer.Option("--every", "-e", min=1, help="use every k-th frame")]
MaxFrames = Annotated[
    int | None, typer.Option("--max-frames", "-n", min=1, help="stop after this many frames")
]
Refine = Annotated[
    bool,
    typer.Option(
        "--refine",
        help="adjust all keyframes together afterwards; writes trajectory_map.tum (extra `refine`)",
    ),
]


def examples(*lines: str) -> str:
    """The end of a command's `--help`: commands that can be typed, and the flags that all take."""
    shown = "\n\n".join(f"  {line}" for line in lines)
    return f"Example:\n\n{shown}\n\nAnywhere: --quiet (-q): warnings only; --debug: tracebacks."


def group(about: str, *lines: str) -> typer.Typer:
    """A command that has commands; its `--help` ends with examples like theirs."""
    return typer.Typer(help=about, epilog=examples(*lines), no_args_is_help=True)


def quiet(as_json: bool = False) -> bool:
    """Whether progress is left out: for `--json`, or where `--quiet` hides log lines as well."""
    return as_json or not logging.getLogger().isEnabledFor(logging.INFO)


def settings_of(config: Path | None, model: str | None, changes: list[str] | None = None) -> Config:
    """The settings of a file, or the defaults; over them what `--set` says, and the model that was
    named. Raises typer.BadParameter for what is no KEY=VALUE."""
    from flow3r_ros.config import load_config

    overrides: dict[str, Any] = {}
    for change in changes or ():
        key, equals, value = change.partition("=")
        if not equals or not key or "." not in key:
            raise typer.BadParameter(f"--set {change}: write GROUP.NAME=VALUE")
        try:
            overrides[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise typer.BadParameter(f"--set {change}: the value is no YAML") from error
    return load_config(config, overrides | ({"model.name": model} if model else {}))


def print_result(result: Mapping[str, Any], as_json: bool) -> None:
    """One JSON object with every digit, or aligned lines with sensible ones."""
    if as_json:
        print(json.dumps(result, default=str))
        return
    print_rows(_rows(result))


def print_rows(rows: Iterable[tuple[str, str]]) -> None:
    """Aligned `name  value` lines, wrapped below their value on a terminal."""
    rows = [(printable(name), printable(value)) for name, value in rows]
    width = max((len(name) for name, _ in rows), default=0) + 2
    room = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for name, value in rows:
        lines = textwrap.wrap(value, max(room - width, 30)) if room else [value]
        head, *more = lines or [""]
        print(f"{name:<{width}}{head}".rstrip())
        for line in more:
            print(f"{'':<{width}}{line}")


def print_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns under their names: the first aligned left, the others, numbers, right."""
    cells = [[printable(cell) for cell in row] for row in (head, *rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(head))]
    for first, *others in cells:
        numbers = (f"{cell:>{width}}" for cell, width in zip(others, widths[1:], strict=True))
        print("  ".join([f"{first:<{widths[0]}}", *numbers]).rstrip())


def print_written(*files: tuple[Location, str]) -> None:
    """What a command wrote, and what it is; the first line is the one to open first."""
    rows = [(str(path), what) for path, what in files]
    width = max((len(path) for path, _ in rows), default=0) + 2
    for index, (path, what) in enumerate(rows):
        print(f"{'wrote' if not index else '':<6}{printable(path):<{width}}{what}".rstrip())


def _rows(result: Mapping[str, Any], indent: int = 0) -> Iterator[tuple[str, str]]:
    for key, value in result.items():
        name = f"{' ' * indent}{key}"
        text = _text(value)
        nested = isinstance(value, Mapping) and (
            len(text) > INLINE or any(isinstance(each, Mapping) for each in value.values())
        )
        if nested and value:
            yield name, ""
            yield from _rows(value, indent + 2)
        else:
            yield name, text


def _text(value: Any) -> str:
    """A value for people: four digits, `yes`, `none`."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {_text(each)}" for key, each in value.items()) or "none"
    if isinstance(value, (list, tuple)):
        return "; ".join(map(_text, value)) or "none"
    return "none" if value is None or value == "" else str(value)


@contextmanager
def progress(what: str, quiet: bool) -> Iterator[Callable[[str], None]]:
    """A status line on a terminal, nothing when quiet, plain lines on stderr otherwise."""
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
