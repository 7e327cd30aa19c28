"""`flow3r`: the command line. Thin: it reads options, imports what one command needs, and prints;
the work is done elsewhere.

Exit codes: 0 done, 1 failed on the data (one line on stderr, no traceback), 2 wrong usage. With
`--json` stdout carries one JSON object and nothing else.
"""

from __future__ import annotations

import json
import logging
import shlex
import sys
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flow3r_ros.cli.console import (
    AsJson,
    ConfigFile,
    Model,
    Topic,
    print_result,
    progress,
    settings_of,
)
from flow3r_ros.cli.evaluate import evaluate_app
from flow3r_ros.cli.models import models_app
from flow3r_ros.errors import Flow3rError

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
app.add_typer(bags_app, name="bags")


class Storage(str, Enum):
    """Choices of `--storage`."""

    mcap = "mcap"
    sqlite3 = "sqlite3"


class Experiment(str, Enum):
    """Choices of `--experiment`."""

    factored = "factored"


class LabelEngine(str, Enum):
    """Choices of `--engine`."""

    local = "local"
    ray = "ray"


def main() -> None:
    """Entry point of the `flow3r` program."""
    logging.basicConfig(level=logging.INFO, stream=sys.stderr, format="%(message)s")
    try:
        code = app(standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except Flow3rError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        _fail("interrupted; nothing half-written was left under its final name")
    except Exception as error:
        exit_with_usage = getattr(error, "exit_code", None)
        if exit_with_usage is None or not hasattr(error, "show"):
            raise
        error.show()
        sys.exit(exit_with_usage)


def _fail(message: str) -> None:
    print(f"flow3r: {' '.join(message.split())}", file=sys.stderr)
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
    }
    summaries, failures = replay_bags(
        bags, output, settings_of(config, model), open_predictor, topic, camera, **options
    )
    if len(bags) == 1:
        print_result(next(iter(summaries.values())), as_json)
    else:
        print_result({"bags": summaries, "failed": failures}, as_json)
    for bag, reason in failures.items():
        print(f"flow3r: {bag}: {reason}", file=sys.stderr)
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
    try:
        from flow3r_ros.ros.process import main as node_main
    except ImportError as error:
        raise Flow3rError(
            f"ROS 2 is not importable ({error})",
            "source /opt/ros/DISTRO/setup.bash or run make setup",
        ) from error
    raise typer.Exit(node_main(context.args))


@app.command()
def label(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="BAG_OR_VIDEO...", help="rosbags, video files or image folders"),
    ],
    output: Annotated[
        Path, typer.Option("--output", help="label cache; an existing one is continued")
    ],
    teacher: Annotated[
        str, typer.Option(help="dis, raft, ufm, or an installed one; A+B: where both agree")
    ] = "dis",
    weights: Annotated[
        Path | None, typer.Option(help="weights of raft or ufm, which you bring")
    ] = None,
    engine: Annotated[
        LabelEngine, typer.Option(help="this machine or a Ray cluster")
    ] = LabelEngine.local,
    workers: Annotated[int, typer.Option(min=1, help="worker processes")] = 1,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, ray://HOST:PORT; none: a local one")
    ] = None,
    topic: Topic = None,
    as_json: AsJson = False,
) -> None:
    """Flow labels of recordings for training; resumable, safe to run twice."""
    from flow3r_ros.training.labels.cache import LabelSettings
    from flow3r_ros.training.labels.labelling import label as label_recordings

    settings = LabelSettings(
        teacher=teacher, teacher_options={"weights": str(weights)} if weights else {}
    )
    with progress("labelling", as_json) as advance:
        report = label_recordings(
            sources,
            output,
            settings,
            engine.value,
            workers,
            address,
            topic,
            lambda r: advance(f"{r.labelled} pairs"),
        )
    print_result(report.as_dict(), as_json)


@app.command()
def train(
    output: Annotated[
        Path, typer.Option("--output", help="run folder: checkpoints/, metrics.csv, model/")
    ],
    config: Annotated[
        Path | None, typer.Option("--config", help="YAML file of training settings (config/train/)")
    ] = None,
    data: Annotated[
        list[Path] | None, typer.Option("--data", help="bags, videos, label caches or scene shards")
    ] = None,
    more_data: Annotated[
        list[Path] | None, typer.Argument(metavar="[DATA]...", help="what follows the first --data")
    ] = None,
    max_steps: Annotated[int | None, typer.Option(min=1, help="stop after this many steps")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="continue from the newest checkpoint")
    ] = False,
    licences: Annotated[
        list[str] | None,
        typer.Option(
            "--license",
            help="licence of the data, for the manifest; once for all, or once for every --data; "
            "default: the LICENSE beside a recording, else unknown",
        ),
    ] = None,
    experiment: Annotated[
        Experiment | None,
        typer.Option(
            help="the paper's experiment instead; --data: scene shards to train on, held-out ones"
        ),
    ] = None,
    seeds: Annotated[
        list[int] | None,
        typer.Option(help="seeds of the experiment, default 1 2 3; repeat for several"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train or fine-tune; writes a model folder that run, replay and the node load."""
    data = [*(data or []), *(more_data or [])]
    if experiment is not None:
        if config or resume or len(data) > 2:
            raise typer.BadParameter(
                "an experiment takes at most two --data, and neither --config nor "
                "--resume: it always resumes"
            )
        from flow3r_ros.training.experiment import Budget, run_experiment

        budget = Budget(steps=max_steps) if max_steps else Budget()
        page = run_experiment(
            output, data, seeds or [1, 2, 3], budget, shlex.join(["flow3r", *sys.argv[1:]])
        )
        print_result({"page": str(page)}, as_json)
        return
    if config is None or not data or seeds:
        raise typer.BadParameter("training takes --config and --data; --seeds is for experiments")
    from flow3r_ros.training.loop import train as train_model

    result = train_model(config, data, output, max_steps, resume, licences or [])
    print_result({"model": str(result.model), **result.metrics}, as_json)


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
}


@app.command()
def bench(
    suite: Annotated[
        list[str] | None, typer.Option("--suite", help=f"{', '.join(SUITES)}; default: all")
    ] = None,
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
    """Measure speed and memory beside their baselines."""
    from importlib import import_module

    from flow3r_ros.bench.suites import render_suites, run_suites, write_performance

    unknown = set(suite or ()) - SUITES.keys()
    if unknown:
        raise typer.BadParameter(
            f"{', '.join(sorted(unknown))}: no such suite; there are {', '.join(SUITES)}"
        )

    def load(name: str) -> Callable[[], dict[str, Any]]:
        module, _, function = SUITES[name].partition(":")
        return lambda: cast(
            dict[str, Any], getattr(import_module(module), function)(thorough=thorough)
        )

    result = run_suites({name: load(name) for name in suite or SUITES})
    if write:
        write_performance(write, result)
    print(json.dumps(result, default=str) if as_json else render_suites(result))


if __name__ == "__main__":
    main()
