"""The command line as a new user meets it: help with examples that can be typed, flags anywhere,
single settings, completion, progress that log lines do not tear."""

from __future__ import annotations

import os
import pty
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from flow3r_ros.cli.console import settings_of, split_flags
from flow3r_ros.cli.main import app
from flow3r_ros.offline import progress
from test.cases.workshop import flow3r
from test.cli.test_cli import write_circle

ROOT = Path(__file__).resolve().parents[2]
GROUP = typer.main.get_command(app)


def commands(group: Any = GROUP, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def test_arguments_are_named_in_capitals() -> None:
    """What a person puts in is told from what is typed as it stands."""
    for name, command in commands():
        for argument in (each for each in command.params if each.param_type_name == "argument"):
            assert re.fullmatch(r"[A-Z_]{3,}|[A-Z]{3}.tum", argument.metavar or ""), (
                name,
                argument.name,
            )


def test_a_group_of_commands_has_examples_of_them() -> None:
    known = dict(commands())
    for name, group in GROUP.commands.items():
        if hasattr(group, "commands"):
            lines = re.findall(r"^\s+flow3r (\w+ [\w-]+)", group.epilog or "", re.MULTILINE)
            assert lines, name
            assert all(line in known and line.startswith(name) for line in lines), lines


@pytest.mark.parametrize(("name", "command"), [*commands()], ids=[name for name, _ in commands()])
def test_every_help_ends_with_an_example_that_is_understood(name: str, command: Any) -> None:
    lines = re.findall(r"^\s+flow3r (.*)$", command.epilog or "", re.MULTILINE)
    assert lines
    for line in lines:
        assert line.startswith(name)
        command.make_context(name, shlex.split(line.removeprefix(name)))


def test_short_forms_mean_the_same_everywhere() -> None:
    meaning: dict[str, str] = {}
    for name, command in commands():
        for option in command.params:
            short = [text for text in option.opts if re.fullmatch(r"-\w", text)]
            for text in short:
                assert meaning.setdefault(text, option.opts[0]) == option.opts[0], (name, text)
    assert {"-o", "-m", "-c", "-s", "-t", "-n", "-j"} <= meaning.keys()
    options = [option for _, command in commands() for option in command.params]
    long = {text: short for short, text in meaning.items()}
    for option in options:
        short = long.get(option.opts[0])
        assert short is None or short in option.opts, option.opts


def test_version_and_help_in_short() -> None:
    assert re.fullmatch(r"flow3r \d+\.\d+\.\d+\n", flow3r("--version").out)
    for arguments in (("-h",), ("run", "-h"), ("models", "list", "-h")):
        done = flow3r(*arguments)
        assert done.code == 0
        assert "Usage: flow3r" in done.out
        assert "\x1b" not in done.out, "no colours in a pipe"


def test_flags_stand_anywhere_but_not_among_those_of_ros() -> None:
    flags, rest = split_flags(["-q", "run", "x", "--debug"])
    assert (flags.quiet, flags.debug, rest) == (True, True, ["run", "x"])
    flags, rest = split_flags(["node", "--ros-args", "--debug"])
    assert (flags.debug, rest) == (False, ["node", "--ros-args", "--debug"])


def test_quiet_leaves_out_progress_and_log_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    monkeypatch.setattr(
        "flow3r_ros.offline.from_video.bag_from_video", lambda *given: seen.append(given[-1]) or {}
    )
    for flags in (("--quiet",), ("-q",), ("--json",), ()):
        flow3r("bags", "from-video", "x.mp4", "-o", "y", *flags)
    assert seen == [True, True, True, False]


def test_the_command_line_needs_only_what_it_declares() -> None:
    """typer has a click of its own; a click that is there by chance is not ours to import."""
    for path in (ROOT / "flow3r_ros" / "cli").glob("*.py"):
        assert "import click" not in path.read_text(encoding="utf-8")


def test_single_settings_go_over_the_file(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text("engine: {window: 3, keyframes: 50}")
    settings = settings_of(file, "some_model", ["engine.window=6", "scale.source=fixed"])
    assert (settings.engine.window, settings.engine.keyframes) == (6, 50)
    assert (settings.scale.source, settings.model.name) == ("fixed", "some_model")
    for wrong in ("window=6", "engine.window", "=6", "engine.window=[", "engine.window="):
        done = flow3r("run", "x.mp4", "-o", tmp_path / "out", "--set", wrong)
        assert done.code in (1, 2), wrong
        assert "Traceback" not in done.err
    assert "engine.windw" in flow3r("run", "x", "-o", "y", "--set", "engine.windw=6").err


def test_completion_completes_and_can_be_installed(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("flow3r")
    asked = {"_FLOW3R_COMPLETE": "complete_bash", "COMP_WORDS": "flow3r re", "COMP_CWORD": "1"}

    def ask(*arguments: str, **variables: str) -> str:
        environment = dict(os.environ, HOME=str(tmp_path), SHELL="/bin/bash", **variables)
        command = ["bash", "-c", shlex.join([str(program), *arguments]) + "; true"]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=280
        )
        return done.stdout

    assert set(ask(**asked).split()) == {"replay", "report"}
    ask("--install-completion")
    assert "flow3r" in (tmp_path / ".bashrc").read_text()


@pytest.mark.parametrize("command", ["models list", "models info flow3r_nano", "run -h"])
def test_what_needs_no_network_does_not_wait_for_torch(command: str) -> None:
    code = (
        "import sys\n"
        "from flow3r_ros.cli.main import app\n"
        "app(args=sys.argv[1:], standalone_mode=False)\n"
        "assert 'torch' not in sys.modules\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split()], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_few_matches_are_no_success(tmp_path: Path) -> None:
    whole = write_circle(tmp_path / "ref.tum")
    lines = whole.read_text().splitlines()
    moments = [f"{float(line.split()[0]) + 0.02:.9f} {line.split(maxsplit=1)[1]}" for line in lines]
    part = tmp_path / "part.tum"
    part.write_text("".join(f"{line}\n" for line in (*lines[:12], *moments[12:])))
    done = flow3r("evaluate", "trajectory", part, whole)
    assert done.code == 1
    assert "only 12 poses match" in done.err
    assert "12" in done.out, "the numbers are there all the same"
    assert flow3r("evaluate", "trajectory", part, whole, "--allow-partial").code == 0
    part.write_text("".join(f"{line}\n" for line in lines[:12]))
    assert flow3r("evaluate", "trajectory", part, whole).code == 0, "a piece of a long reference"


def test_rate_and_time_left_are_those_of_the_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    with progress.FrameProgress("clip", 100, quiet=True) as shown:
        now[0] = 60.0  # a model loads, pictures wait for their camera
        shown.reach(12)
        assert shown.rate() == ""
        for _ in range(20):
            now[0] += 0.1
            shown.step()
        assert shown.rate() == "10.0 frames/s, 7 s left"


def test_log_lines_stand_above_the_progress_bar() -> None:
    code = (
        "import logging, time\n"
        "from flow3r_ros.cli.console import set_up_logging\n"
        "from flow3r_ros.offline.progress import FrameProgress\n"
        "set_up_logging()\n"
        "with FrameProgress('clip', 3) as shown:\n"
        "    for index in range(3):\n"
        "        shown.step(); time.sleep(0.15); logging.warning('line %d', index)\n"
    )
    ours, theirs = pty.openpty()
    environment = dict(os.environ, TERM="xterm", COLUMNS="100")
    with subprocess.Popen([sys.executable, "-c", code], stderr=theirs, env=environment):
        os.close(theirs)
        text = b""
        try:
            while data := os.read(ours, 4096):
                text += data
        except OSError:  # the other end is closed
            pass
    shown = text.decode()
    for index in range(3):
        assert re.search(rf"\x1b\[2K(\x1b\[\d*\w)*line {index}\r?\n", shown), "on a cleared line"


def test_the_first_line_of_a_help_is_whole() -> None:
    """A list of commands shows it; a break in it would be shown as one."""
    for name, command in commands():
        first = (command.callback.__doc__ or "").strip().partition("\n\n")[0]
        assert "\n" not in first, name
