"""`flow3r export`: results in other people's formats."""

from __future__ import annotations

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from flow3r_ros.cli.console import (
    AsJson,
    Changes,
    ConfigFile,
    MaxFrames,
    Model,
    examples,
    group,
    print_result,
    print_written,
    quiet,
    settings_of,
)
from flow3r_ros.errors import printable

export_app = group(
    "Results in the formats of others.", "flow3r export lerobot out --output dataset"
)


@export_app.command(
    epilog=examples(
        "flow3r export lerobot my_dataset --topic front --output my_dataset_3d",
        "flow3r export lerobot clip.mp4 other.mp4 --output dataset",
        "flow3r export lerobot out --output dataset",
    )
)
def lerobot(
    inputs: Annotated[
        list[Path],
        typer.Argument(
            metavar="INPUT",
            help="a LeRobot dataset (v3) to be copied with poses and depth added; or outputs of "
            "run, videos, bags, image folders: a new dataset, one episode each",
        ),
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="dataset to write; complete or not at all")
    ],
    topic: Annotated[
        str | None,
        typer.Option("--topic", "-t", help="camera of a dataset that has several, topic of bags"),
    ] = None,
    camera: Annotated[
        Path | None,
        typer.Option(
            help="camera.json; missing: intrinsics are estimated or assumed, and it is said which"
        ),
    ] = None,
    runs: Annotated[
        Path | None,
        typer.Option(help="folder that keeps the run of every episode; those there are not redone"),
    ] = None,
    depth: Annotated[
        bool,
        typer.Option(
            "--depth/--no-depth", help="write depth too (16-bit pictures, about 80 kB a frame)"
        ),
    ] = True,
    task: Annotated[
        str, typer.Option(help="what the episodes of a new dataset are about")
    ] = "look around",
    max_frames: MaxFrames = None,
    model: Model = None,
    config: ConfigFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Poses and depth as features of a LeRobot dataset: a copy of one, or a new one."""
    from flow3r_ros.network.runner import open_predictor
    from flow3r_ros.offline.lerobot_export import export
    from flow3r_ros.offline.lerobot_runs import ExportOptions

    options = ExportOptions(
        settings_of(config, model, changes),
        open_predictor,
        topic=topic,
        camera=camera,
        depth=depth,
        task=task,
        quiet=quiet(as_json),
        max_frames=max_frames,
    )
    report = export(inputs, output, options, runs)
    print_result(asdict(report), as_json)
    if not as_json:
        print_written((output, "LeRobotDataset(repo_id, root=...) reads it"))
    for what, why in report.failed.items():
        print(printable(f"flow3r: {what}: {why}"), file=sys.stderr)
    raise typer.Exit(1 if report.failed else 0)
