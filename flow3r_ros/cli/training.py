"""`flow3r label` and `flow3r train`: from recordings to labels, from labels to a model folder."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Annotated, Any

import typer

from flow3r_ros.cli.console import AsJson, Topic, print_result, print_written, progress, quiet
from flow3r_ros.storage import location


class Experiment(str, Enum):
    """Choices of `--experiment`."""

    factored = "factored"


class LabelEngine(str, Enum):
    """Choices of `--engine`."""

    local = "local"
    ray = "ray"


def label(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="BAG_OR_VIDEO",
            help="rosbags, video files, image folders or LeRobot datasets, here or in storage "
            "(s3://BUCKET/NAME)",
        ),
    ],
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="label cache, or its address; an existing one is continued"
        ),
    ],
    teacher: Annotated[
        str,
        typer.Option(help="dis, raft, sea_raft, ufm, or an installed one; A+B: where both agree"),
    ] = "dis",
    weights: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TEACHER=]PATH",
            help="weights of raft, sea_raft or ufm, which you bring; once for each of two",
        ),
    ] = None,
    weights_license: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[TEACHER=]TEXT",
            help="their licence, for the manifest; default: the LICENSE beside them, else unknown",
        ),
    ] = None,
    device: Annotated[
        str | None, typer.Option(help="where a network runs: cpu (default), cuda, cuda:1")
    ] = None,
    engine: Annotated[
        LabelEngine, typer.Option(help="this machine or a Ray cluster")
    ] = LabelEngine.local,
    workers: Annotated[
        int | None,
        typer.Option(
            min=1, help="worker processes; default: one here, on Ray what the cluster has"
        ),
    ] = None,
    address: Annotated[
        str | None, typer.Option(help="Ray cluster, ray://HOST:PORT; none: a local one")
    ] = None,
    gpus: Annotated[
        float, typer.Option("--gpus-per-worker", min=0, help="of a Ray node, a share such as 0.5")
    ] = 0.0,
    topic: Topic = None,
    as_json: AsJson = False,
) -> None:
    """Flow labels of recordings for training; resumable, safe to run twice."""
    from flow3r_ros.training.labels.cache import LabelSettings
    from flow3r_ros.training.labels.labelling import in_words
    from flow3r_ros.training.labels.labelling import label as label_recordings

    options = teacher_options(teacher, {"weights": weights, "license": weights_license})
    if device:
        options["device"] = device
    settings = LabelSettings(teacher=teacher, teacher_options=options)
    with progress("labelling", quiet(as_json)) as advance:
        report = label_recordings(
            [location(source) for source in sources],
            location(output),
            settings,
            engine.value,
            workers,
            address,
            topic,
            lambda r: advance(in_words(r)),
            gpus,
        )
    print_result(report.as_dict(), as_json)
    if not as_json:
        print_written((location(output), "flow3r train --data takes it"))
    for source, reason in report.failed.items():
        print(f"flow3r: {source}: {reason}", file=sys.stderr)
    raise typer.Exit(1 if report.failed else 0)


def teacher_options(teacher: str, given: Mapping[str, Sequence[str] | None]) -> dict[str, Any]:
    """Options of a teacher, or of each of two, from what was typed as VALUE or TEACHER=VALUE.

    Raises typer.BadParameter for a value that belongs to no teacher or is given twice.
    """
    names = teacher.split("+")
    found: dict[str, Any] = {}
    for option, values in given.items():
        for text in values or ():
            name, equals, value = text.partition("=")
            if not equals or name not in names:
                name, value = "", text
            place = found.setdefault(name, {}) if name else found
            if option in place:
                raise typer.BadParameter(
                    f"--{option} is given twice: write TEACHER=... with one of {', '.join(names)}"
                )
            place[option] = value
    return found


def train(
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", help="run folder, or its address: checkpoints/, metrics.csv, model/"
        ),
    ],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", help="YAML file of training settings (config/train/)"),
    ] = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            "--data",
            "-d",
            help="bags, videos, LeRobot datasets, label caches or scene shards, here or in storage "
            "(s3://...)",
        ),
    ] = None,
    more_data: Annotated[
        list[str] | None, typer.Argument(metavar="DATA", help="what follows the first --data")
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
        typer.Option(help="seeds of the experiment, default 1 to 5; repeat for several"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Train or fine-tune; writes a model folder that run, replay and the node load."""
    paths = [location(path) for path in (*(data or []), *(more_data or []))]
    if experiment is not None:
        if config or resume or max_steps or len(paths) > 2:
            raise typer.BadParameter(
                "an experiment takes at most two --data, and neither --config, --max-steps nor "
                "--resume: it always resumes"
            )
        from flow3r_ros.training.experiment import Budget, run_experiment

        local = [path for path in (location(output), *paths) if isinstance(path, Path)]
        if len(local) <= len(paths):
            raise typer.BadParameter("an experiment reads and writes local files")
        page = run_experiment(
            local[0],
            local[1:],
            seeds or [1, 2, 3, 4, 5],
            Budget(),
            shlex.join(["flow3r", *sys.argv[1:]]),
        )
        print_result({"page": str(page)}, as_json)
        return
    if config is None or not paths or seeds:
        raise typer.BadParameter("training takes --config and --data; --seeds is for experiments")
    from flow3r_ros.training.loop import train as train_model

    result = train_model(config, paths, location(output), max_steps, resume, licences or [])
    print_result({"model": str(result.model), **result.metrics}, as_json)
    if not as_json:
        print_written(
            (result.model, "--model takes it"), (location(output), "checkpoints, metrics.csv")
        )
