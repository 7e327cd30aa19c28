"""`flow3r run`, `replay`, `report`, `bags from-video`: from recordings to results."""

from __future__ import annotations

import signal
import sys
import webbrowser
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from flow3r_ros.cli.console import (
    AsJson,
    Changes,
    ConfigFile,
    Episode,
    Every,
    MaxFrames,
    Model,
    Refine,
    Topic,
    print_result,
    print_rows,
    print_table,
    print_written,
    quiet,
    settings_of,
)
from flow3r_ros.errors import printable
from flow3r_ros.paths import OutputFolder
from flow3r_ros.storage import local_copy, location

WRITTEN = {
    "report.html": "open this first",
    "trajectory*.tum": "camera poses",
    "*.mcap": "the node's topics",
    "cloud.ply": "coloured points",
    "depth": "16-bit PNG, scale in depth/meta.json",
    "confidence": "8-bit PNG",
    "summary.json": "what happened, for programs",
    "run.yaml": "settings; --config run.yaml repeats the run",
}
"""what stands in an output folder -> what it is, in the order that the console names it"""


class Storage(str, Enum):
    """Choices of `--storage`."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


class OnInterrupt(str, Enum):
    """Choices of `--on-interrupt`."""

    keep = "keep"
    discard = "discard"


Interrupted = Annotated[
    OnInterrupt,
    typer.Option("--on-interrupt", help="keep what Ctrl-C, a full disk or a kill leaves, or not"),
]
Rerun = Annotated[Path | None, typer.Option("--rerun", help="also write a rerun recording (.rrd)")]
Resume = Annotated[
    bool | None,
    typer.Option("--resume/--restart", help="go on with what was interrupted, or begin anew"),
]


def run(
    source: Annotated[
        str,
        typer.Argument(
            metavar="INPUT",
            help="video file, image folder, rosbag2 folder or LeRobot dataset, here or in storage (s3://...)",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="folder to write; appears complete or not at all")
    ],
    camera: Annotated[
        Path | None,
        typer.Option(
            help="camera.json; missing: intrinsics are estimated or assumed, and it is said which"
        ),
    ] = None,
    model: Model = None,
    every: Every = 1,
    max_frames: MaxFrames = None,
    topic: Topic = None,
    episode: Episode = None,
    save_confidence: Annotated[
        bool, typer.Option("--save-confidence", help="also write confidence/ (8-bit PNG)")
    ] = False,
    rerun: Rerun = None,
    live: Annotated[
        bool, typer.Option("--view", help="watch it in rerun's viewer while it runs")
    ] = False,
    on_interrupt: Interrupted = OnInterrupt.keep,
    resume: Resume = None,
    refine: Refine = False,
    config: ConfigFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Poses, depth, a cloud and a report from a video, image folder, bag or LeRobot episode."""
    from flow3r_ros.network.runner import open_predictor
    from flow3r_ros.offline.rerun_log import RerunLog
    from flow3r_ros.offline.run import run_to_folder

    if rerun is not None and live:
        raise typer.BadParameter("--rerun writes a file, --view shows it: choose one")
    _obey(on_interrupt)
    settings = settings_of(config, model, changes)
    with ExitStack() as stack:
        shown = rerun is not None or live
        place = location(source)
        if not isinstance(place, Path):  # before it is copied here
            OutputFolder(output, resume=resume).check()
        watch = stack.enter_context(RerunLog(rerun, place.stem)) if shown else None
        summary = run_to_folder(
            stack.enter_context(local_copy(place)),
            output,
            settings,
            open_predictor,
            camera_file=camera,
            topic=topic,
            every=every,
            max_frames=max_frames,
            quiet=quiet(as_json),
            save_confidence=save_confidence,
            on_interrupt=on_interrupt.value,
            resume=resume,
            refine=refine,
            watch=watch,
            episode=episode,
        )
    _print_summary(summary, output, as_json)
    raise typer.Exit(1 if "partial" in summary else 0)


def replay(
    bags: Annotated[
        list[str],
        typer.Argument(
            metavar="BAG",
            help="rosbag2 folders, mcap, sqlite3 or ROS 1 bags, here or in storage (s3://...)",
        ),
    ],
    output: Annotated[
        Path,
        typer.Option(
            "--output", "-o", help="bag to write; with several bags a folder with one bag each"
        ),
    ],
    config: ConfigFile = None,
    topic: Topic = None,
    camera: Annotated[
        Path | None, typer.Option(help="camera.json instead of the bag's CameraInfo")
    ] = None,
    model: Model = None,
    start: Annotated[float, typer.Option(min=0, help="seconds to skip")] = 0.0,
    duration: Annotated[float | None, typer.Option(min=0, help="seconds to use")] = None,
    every: Every = 1,
    rerun: Rerun = None,
    on_interrupt: Interrupted = OnInterrupt.keep,
    resume: Resume = None,
    refine: Refine = False,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Every frame of a bag through the node's engine; writes an mcap with the node's topics."""
    from flow3r_ros.network.runner import open_predictor
    from flow3r_ros.offline.replay import replay_bags

    _obey(on_interrupt)
    options: dict[str, Any] = {
        "start": start,
        "duration": duration,
        "every": every,
        "rerun": rerun,
        "quiet": quiet(as_json),
        "on_interrupt": on_interrupt.value,
        "resume": resume,
        "refine": refine,
    }
    with ExitStack() as stack:
        here = [stack.enter_context(local_copy(location(bag))) for bag in bags]
        settings = settings_of(config, model, changes)
        summaries, failures = replay_bags(
            here, output, settings, open_predictor, topic, camera, **options
        )
    if as_json:
        several = {"bags": summaries, "failed": failures}
        print_result(several if len(bags) > 1 else next(iter(summaries.values())), True)
    else:
        for folder, summary in summaries.items():
            _print_summary(summary, Path(folder), False)
    for bag, reason in failures.items():
        print(printable(f"flow3r: {bag}: {reason}"), file=sys.stderr)
    partial = any("partial" in summary for summary in summaries.values())
    raise typer.Exit(1 if failures or partial else 0)


def report(
    runs: Annotated[
        list[Path],
        typer.Argument(metavar="DIR_OR_BAG", help="outputs of run or replay; several are compared"),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="HTML file to write")] = Path(
        "report.html"
    ),
    show: Annotated[bool, typer.Option("--open", help="open it in the browser")] = False,
) -> None:
    """Rebuild the report of a run, or lay several runs side by side."""
    from flow3r_ros.report.page import load_record, write_comparison, write_report

    records = [load_record(run) for run in runs]
    if len(records) == 1:
        write_report(output, records[0])
    else:
        write_comparison(output, records)
    print_written((output, "opens in any browser, without network"))
    if show and not webbrowser.open(output.absolute().as_uri()):
        print(f"flow3r: no browser could be started; open {output} yourself", file=sys.stderr)


def view(
    folder: Annotated[
        Path | None, typer.Argument(metavar="DIR", help="output of run or replay")
    ] = None,
    live: Annotated[
        bool, typer.Option("--live", help="watch a node that runs, until Ctrl-C")
    ] = False,
    node: Annotated[str, typer.Option(help="name of that node, with its namespace")] = "flow3r",
    save: Annotated[
        Path | None, typer.Option("--rerun", help="write a recording (.rrd) instead of showing it")
    ] = None,
) -> None:
    """Turn a finished run in rerun's viewer (way, map, depth, truth), or watch a running node."""
    from flow3r_ros.offline.rerun_log import RerunLog
    from flow3r_ros.offline.view import view_run

    if (folder is None) != live:
        raise typer.BadParameter("give the output folder of a run, or --live for a node")
    with RerunLog(save, node if folder is None else folder.name, z_up=live) as log:
        if folder is None:
            from flow3r_ros.cli.programs import module

            module("flow3r_ros.ros.live_view").watch(log, node)
        else:
            view_run(folder, log)
    if save is not None:
        print_written((save, "rerun opens it"))


def bags_from_video(
    video: Annotated[
        Path, typer.Argument(metavar="INPUT", help="video file, image folder or clip folder")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="rosbag2 folder to write")],
    camera: Annotated[Path | None, typer.Option(help="camera.json, written as CameraInfo")] = None,
    compressed: Annotated[
        bool, typer.Option("--compressed", help="CompressedImage (jpeg) instead of Image")
    ] = False,
    storage: Annotated[Storage, typer.Option(help="file format")] = Storage.mcap,
    every: Every = 1,
    max_frames: MaxFrames = None,
    as_json: AsJson = False,
) -> None:
    """Make a rosbag2 of a video, for trying things out."""
    from flow3r_ros.offline.from_video import bag_from_video

    result = bag_from_video(
        video, output, camera, compressed, storage.value, every, max_frames, quiet(as_json)
    )
    print_result(result, as_json)
    if not as_json:
        print_written((output, "ros2 bag play and flow3r replay take it"))


def _obey(on_interrupt: OnInterrupt) -> None:
    """With discard, SIGTERM ends a command as Ctrl-C does: what was begun is removed."""
    if on_interrupt is OnInterrupt.discard:
        with suppress(ValueError):  # outside the main thread
            signal.signal(signal.SIGTERM, signal.default_int_handler)


def _print_summary(summary: Mapping[str, Any], folder: Path, as_json: bool) -> None:
    """What happened, what it cost, what went wrong, what was written."""
    from flow3r_ros.report.words import problems_of, stage_rows, summary_rows

    if as_json:
        print_result(summary, True)
        return
    print_rows(summary_rows(summary))
    print()
    print_table(["stage", "ms a frame", "median ms when it runs"], stage_rows(summary))
    print()
    for problem in problems_of(summary):
        remedy = f"\n         -> {problem.remedy}" if problem.remedy else ""
        print(f"problem  {printable(problem.in_words())}{remedy}")
    names = {path.relative_to(folder): what for pattern, what in WRITTEN.items()
             for path in sorted(folder.glob(pattern))}  # fmt: skip
    print_written(*((folder / name, what) for name, what in names.items()))
