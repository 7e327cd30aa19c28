"""`flow3r`: the command line. Thin: it reads options, imports what one command needs, and prints;
the work is done elsewhere.

Exit codes: 0 done, 1 failed on the data (one line on stderr, no traceback), 2 wrong usage. With
`--json` stdout carries one JSON object and nothing else.
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flow3r_ros.cli.console import (
    AsJson,
    ConfigFile,
    Model,
    Refine,
    Topic,
    print_result,
    set_up_logging,
    settings_of,
)
from flow3r_ros.cli.evaluate import evaluate_app
from flow3r_ros.cli.maps import map_app
from flow3r_ros.cli.models import models_app
from flow3r_ros.cli.training import label, train
from flow3r_ros.errors import Flow3rError, printable

app = typer.Typer(
    name="flow3r",
    help="Poses, dense depth and point clouds from one monocular camera.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
bags_app = typer.Typer(help="Small tools around rosbags.", no_args_is_help=True)
app.add_typer(evaluate_app, name="evaluate")
app.add_typer(models_app, name="models")
app.add_typer(map_app, name="map")
app.add_typer(bags_app, name="bags")


class Storage(str, Enum):
    """Choices of `--storage`."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


@app.callback()
def options(
    debug: Annotated[
        bool, typer.Option("--debug", help="show the traceback of an error, wherever it stands")
    ] = False,
) -> None:
    """Poses, dense depth and point clouds from one monocular camera."""


def main() -> None:
    """Entry point of the `flow3r` program."""
    set_up_logging()
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        code = app(args=arguments, standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written was left under its final name")
    except Exception as error:
        usage = getattr(error, "exit_code", None)
        if usage is not None and hasattr(error, "show"):
            error.show()
            sys.exit(usage)
        if debug:
            traceback.print_exc()
        _fail(str(error) if isinstance(error, Flow3rError) else _unexpected(error))


def _unexpected(error: Exception) -> str:
    """One line for an error that nobody foresaw."""
    if isinstance(error, MemoryError):
        return "out of memory; use smaller pictures, fewer workers, or a machine with more memory"
    words = str(error) or "no details"
    what = f"{words} ({type(error).__name__})"
    return f"{what}; if the input is right this is a fault of flow3r: --debug shows where"


def _fail(message: str) -> None:
    print(printable(f"flow3r: {' '.join(message.split())}"), file=sys.stderr)
    sys.exit(1)


@app.command()
def run(
    source: Annotated[
        Path, typer.Argument(metavar="INPUT", help="video file, image folder or rosbag2 folder")
    ],
    output: Annotated[
        Path, typer.Option("--output", help="folder to write; appears complete or not at all")
    ],
    camera: Annotated[
        Path | None,
        typer.Option(help="camera.json; missing: intrinsics are estimated and reported as such"),
    ] = None,
    model: Model = None,
    every: Annotated[int, typer.Option(min=1, help="use every k-th frame")] = 1,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="stop after this many frames")
    ] = None,
    topic: Topic = None,
    save_confidence: Annotated[
        bool, typer.Option("--save-confidence", help="also write confidence/ (8-bit PNG)")
    ] = False,
    refine: Refine = False,
    config: ConfigFile = None,
    as_json: AsJson = False,
) -> None:
    """Poses, depth, a cloud and a report from a video, image folder or bag."""
    from flow3r_ros.network.runner import open_predictor
    from flow3r_ros.offline.run import run_to_folder

    settings = settings_of(config, model)
    summary = run_to_folder(
        source,
        output,
        settings,
        open_predictor,
        camera_file=camera,
        topic=topic,
        every=every,
        max_frames=max_frames,
        quiet=as_json,
        save_confidence=save_confidence,
        refine=refine,
    )
    print_result(summary, as_json)


@app.command()
def replay(
    bags: Annotated[
        list[Path],
        typer.Argument(metavar="BAG...", help="rosbag2 folders, mcap, sqlite3 or ROS 1 bags"),
    ],
    output: Annotated[
        Path,
        typer.Option("--output", help="bag to write; with several bags a folder with one bag each"),
    ],
    config: ConfigFile = None,
    topic: Topic = None,
    camera: Annotated[
        Path | None, typer.Option(help="camera.json instead of the bag's CameraInfo")
    ] = None,
    model: Model = None,
    start: Annotated[float, typer.Option(min=0, help="seconds to skip")] = 0.0,
    duration: Annotated[float | None, typer.Option(min=0, help="seconds to use")] = None,
    every: Annotated[int, typer.Option(min=1, help="use every k-th frame")] = 1,
    rerun: Annotated[Path | None, typer.Option(help="also write a rerun recording (.rrd)")] = None,
    refine: Refine = False,
    as_json: AsJson = False,
) -> None:
    """Every frame of a bag through the node's engine; writes an mcap with the node's topics."""
    from flow3r_ros.network.runner import open_predictor
    from flow3r_ros.offline.replay import replay_bags

    options: dict[str, Any] = {
        "start": start,
        "duration": duration,
        "every": every,
        "rerun": rerun,
        "quiet": as_json,
        "refine": refine,
    }
    summaries, failures = replay_bags(
        bags, output, settings_of(config, model), open_predictor, topic, camera, **options
    )
    if len(bags) == 1:
        print_result(next(iter(summaries.values())), as_json)
    else:
        print_result({"bags": summaries, "failed": failures}, as_json)
    for bag, reason in failures.items():
        print(printable(f"flow3r: {bag}: {reason}"), file=sys.stderr)
    raise typer.Exit(1 if failures else 0)


@bags_app.command("from-video")
def bags_from_video(
    video: Annotated[Path, typer.Argument(help="video file, image folder or clip folder")],
    output: Annotated[Path, typer.Option("--output", help="rosbag2 folder to write")],
    camera: Annotated[Path | None, typer.Option(help="camera.json, written as CameraInfo")] = None,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="CompressedImage (jpeg) instead of Image")
    ] = False,
    storage: Annotated[Storage, typer.Option(help="file format")] = Storage.mcap,
    every: Annotated[int, typer.Option(min=1, help="use every k-th frame")] = 1,
    max_frames: Annotated[
        int | None, typer.Option(min=1, help="stop after this many frames")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Make a rosbag2 of a video, for trying things out."""
    from flow3r_ros.offline.from_video import bag_from_video

    print_result(
        bag_from_video(
            video, output, camera, compressed, storage.value, every, max_frames, as_json
        ),
        as_json,
    )


@app.command()
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


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def node(context: typer.Context) -> None:
    """The ROS 2 node without `ros2 launch`; everything after it goes to ROS (`--ros-args ...`)."""
    from flow3r_ros.cli.ros_programs import program

    raise typer.Exit(program("flow3r_ros.ros.process")(context.args))


app.command()(label)
app.command()(train)


@app.command()
def report(
    runs: Annotated[
        list[Path],
        typer.Argument(
            metavar="DIR_OR_BAG...", help="outputs of run or replay; several are compared"
        ),
    ],
    output: Annotated[Path, typer.Option("--output", help="HTML file to write")] = Path(
        "report.html"
    ),
) -> None:
    """Rebuild the report of a run, or lay several runs side by side."""
    from flow3r_ros.report.page import load_record, write_comparison, write_report

    records = [load_record(run) for run in runs]
    print(
        write_report(output, records[0]) if len(records) == 1 else write_comparison(output, records)
    )


SUITES = {
    "network": "flow3r_ros.bench.network:bench_network",
    "odometry": "flow3r_ros.bench.odometry:bench_odometry",
    "run": "flow3r_ros.bench.run:bench_run",
    "node": "flow3r_ros.bench.node:bench_node",
    "replay": "flow3r_ros.bench.replay:bench_replay",
    "label": "flow3r_ros.bench.training:bench_label",
    "train": "flow3r_ros.bench.training:bench_train",
    "faults": "flow3r_ros.bench.faults:bench_faults",
    "consistency": "flow3r_ros.bench.consistency:bench_consistency",
    "rooms": "flow3r_ros.bench.consistency:bench_rooms",
}
TRUST = {"faults": ("clips", "model"), "consistency": ("clips", "model"), "rooms": ("model",)}
"""suites about trust instead of speed, and the options they take; they run when they are named"""


@app.command()
def bench(
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", help=f"{', '.join(SUITES)}; default: all but {', '.join(TRUST)}"),
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(
            "--clip",
            help="clips of faults and consistency (video, image folder, bag); repeat for "
            "several; default: the bundled one and those of ../shared/video",
        ),
    ] = None,
    model: Model = None,
    write: Annotated[
        Path | None, typer.Option(help="also write this page (docs/performance.md)")
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough", help="memory over the full length of time; takes half an hour more"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure speed and memory beside their baselines, or (faults, consistency) honesty."""
    from importlib import import_module

    from flow3r_ros.bench.suites import render_suites, run_suites, write_performance

    unknown = set(suite or ()) - SUITES.keys()
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: no such suite; there are {', '.join(SUITES)}"
        )
    names = suite or [name for name in SUITES if name not in TRUST]
    given = {name: value for name, value in (("clips", clip), ("model", model)) if value}
    for name in names:
        if refused := given.keys() - set(TRUST.get(name, ())):
            raise typer.BadParameter(f"suite {name} takes no {' and no '.join(sorted(refused))}")

    def load(name: str) -> Callable[[], dict[str, Any]]:
        module, _, function = SUITES[name].partition(":")
        return lambda: cast(
            dict[str, Any], getattr(import_module(module), function)(thorough=thorough, **given)
        )

    result = run_suites({name: load(name) for name in names})
    if write:
        write_performance(write, result)
    print(json.dumps(result, default=str) if as_json else render_suites(result))


if __name__ == "__main__":
    main()
