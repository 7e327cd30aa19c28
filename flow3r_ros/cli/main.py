"""`flow3r`: the command line. Thin: it reads options, imports what one command needs, and prints;
the work is done elsewhere.

Exit codes: 0 done, 1 failed on the data (one line on stderr, no traceback), 2 wrong usage, 130
interrupted and nothing kept. With `--json` stdout carries one JSON object and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Annotated

import typer

from flow3r_ros import __version__
from flow3r_ros.cli.benchmarks import bench
from flow3r_ros.cli.console import (
    AsJson,
    Model,
    examples,
    group,
    refuse_addresses,
    set_up_logging,
    split_flags,
)
from flow3r_ros.cli.evaluate import evaluate_app
from flow3r_ros.cli.exports import export_app
from flow3r_ros.cli.maps import map_app
from flow3r_ros.cli.models import models_app
from flow3r_ros.cli.recordings import bags_from_video, replay, report, run, view
from flow3r_ros.cli.training import label, train
from flow3r_ros.errors import Flow3rError, install_module, printable

INTERRUPTED = 130
"""exit code after Ctrl-C, as shells know it"""

app = typer.Typer(
    name="flow3r",
    help="Poses, dense depth and point clouds from one monocular camera.",
    epilog=examples("flow3r run video.mp4 --output out", "flow3r run --help"),
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
    pretty_exceptions_enable=False,
)
bags_app = group("Small tools around rosbags.", "flow3r bags from-video video.mp4 --output bag")
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(models_app, name="models")
app.add_typer(map_app, name="map")
app.add_typer(export_app, name="export")
app.add_typer(bags_app, name="bags")


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"flow3r {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="print the version"),
    ] = False,
) -> None:
    """Poses, dense depth and point clouds from one monocular camera."""


def main() -> None:
    """Entry point of the `flow3r` program."""
    flags, arguments = split_flags(sys.argv[1:])
    set_up_logging(flags.quiet)
    try:
        refuse_addresses(arguments)
        code = app(args=arguments, standalone_mode=False, prog_name="flow3r")
        if code == INTERRUPTED:  # what typer makes of Ctrl-C
            raise KeyboardInterrupt
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _interrupted()
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # what older releases of typer make
            _interrupted()
        usage = getattr(error, "exit_code", None)
        if usage is not None and hasattr(error, "show"):
            error.show()
            sys.exit(usage)
        if flags.debug:
            traceback.print_exc()
        _fail(str(error) if isinstance(error, Flow3rError) else _unexpected(error))


def _unexpected(error: Exception) -> str:
    """One line for an error that nobody foresaw."""
    if isinstance(error, MemoryError):
        return "out of memory; use smaller pictures, fewer workers, or a machine with more memory"
    if isinstance(error, ModuleNotFoundError) and not (error.name or "").startswith("flow3r_ros"):
        package = (error.name or "").partition(".")[0]
        return f"{package} is not installed; {install_module(package)}"
    words = str(error) or "no details"
    what = f"{words} ({type(error).__name__})"
    return f"{what}; if the input is right this is a fault of flow3r: --debug shows where"


def _interrupted() -> None:
    _fail("interrupted; nothing half-written was left under its final name", INTERRUPTED)


def _fail(message: str, code: int = 1) -> None:
    print(printable(f"flow3r: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(code)


def doctor(as_json: AsJson = False, model: Model = None) -> None:
    """Check the installation and say what to do about each failure."""
    from flow3r_ros.cli.doctor import examine

    findings = examine(model or "flow3r_nano")
    failed = any(finding.status == "failed" for finding in findings)
    if as_json:
        print(json.dumps({"ok": not failed, "checks": [finding.as_dict() for finding in findings]}))
    else:
        for finding in findings:
            print(
                f"{finding.status:<8} {finding.check:<18} {finding.found}"
                + (f"\n         -> {finding.cure}" if finding.cure else "")
            )
    raise typer.Exit(1 if failed else 0)


def node(context: typer.Context) -> None:
    """The ROS 2 node without `ros2 launch`; everything after it goes to ROS (`--ros-args ...`)."""
    from flow3r_ros.cli.programs import program

    raise typer.Exit(program("flow3r_ros.ros.process")(context.args))


COMMANDS: dict[Callable[..., None], tuple[str, ...]] = {
    run: (
        "flow3r run video.mp4 --output out",
        "flow3r run video.mp4 -o out --camera camera.json --set engine.window=6",
    ),
    replay: ("flow3r replay bag --output replayed",),
    report: ("flow3r report out --output report.html --open",),
    view: ("flow3r view out", "flow3r view --live --node flow3r"),
    doctor: ("flow3r doctor",),
    label: ("flow3r label bags/one bags/two --output labels",),
    train: ("flow3r train --config config/train/finetune.yaml --data labels --output trained",),
    bench: ("flow3r bench --suite run",),
}
"""command -> the examples at the end of its help"""
for command, lines in COMMANDS.items():
    app.command(epilog=examples(*lines))(command)
app.command(
    context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    epilog=examples("flow3r node --ros-args -r image:=/camera/image_raw"),
)(node)
bags_app.command(
    "from-video",
    epilog=examples("flow3r bags from-video video.mp4 --output bag --camera camera.json"),
)(bags_from_video)


if __name__ == "__main__":
    main()
