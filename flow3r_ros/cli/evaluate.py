"""`flow3r evaluate`: a trajectory, a model or a recording against the truth."""

from __future__ import annotations

import json
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from flow3r_ros.cli.console import (
    AsJson,
    Changes,
    ConfigFile,
    MaxFrames,
    Model,
    Topic,
    examples,
    group,
    print_result,
    print_written,
    settings_of,
)

evaluate_app = group(
    "Compare a trajectory, a recording or a model with the truth.",
    "flow3r evaluate trajectory out/trajectory.tum truth.tum",
    "flow3r evaluate recording bag --output page.html",
)


FEW = 0.5
"""share of the poses that have to match before a comparison stands for the trajectory"""


class Alignment(str, Enum):
    """Choices of `--align`."""

    none = "none"
    scale = "scale"
    se3 = "se3"
    sim3 = "sim3"


class DeltaUnit(str, Enum):
    """Choices of `--delta-unit`."""

    frames = "frames"
    metres = "metres"


@evaluate_app.command(
    epilog=examples("flow3r evaluate trajectory out/trajectory.tum truth.tum --align sim3")
)
def trajectory(
    estimate: Annotated[Path, typer.Argument(metavar="EST.tum")],
    reference: Annotated[Path, typer.Argument(metavar="REF.tum")],
    align: Annotated[Alignment, typer.Option(help="what of the estimate is free")] = Alignment.sim3,
    delta: Annotated[float, typer.Option(help="distance of the poses that RPE compares")] = 1.0,
    delta_unit: Annotated[
        DeltaUnit, typer.Option(help="unit of --delta; metres are measured along the reference")
    ] = DeltaUnit.frames,
    offset: Annotated[
        float,
        typer.Option(
            help="seconds added to the estimate's stamps, for a reference in another time base"
        ),
    ] = 0.0,
    allow_partial: Annotated[
        bool,
        typer.Option(
            "--allow-partial", help="exit with 0 also where fewer than half of the poses match"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """ATE and RPE of a TUM trajectory against a reference; lengths in the reference's unit."""
    from flow3r_ros.evaluation.trajectory import evaluate_trajectory

    result = evaluate_trajectory(
        estimate, reference, align.value, delta, delta_unit.value, offset_s=offset
    )
    print_result(result, as_json)
    if result["suggested_offset_s"] is not None:
        hint = "the motions agree clearly better at another time offset; if the clocks differ, try"
        print(f"flow3r: {hint} --offset {result['suggested_offset_s']:.3f}", file=sys.stderr)
    if result["matched_share"] < FEW:
        print(
            f"flow3r: only {result['matched']} poses match, {result['matched_share']:.0%} of what "
            f"{estimate} ({result['est_frames']} poses) and {reference} ({result['ref_frames']}) "
            "could share: the errors stand for that part alone; check stamps and --offset, or "
            "say --allow-partial",
            file=sys.stderr,
        )
        raise typer.Exit(0 if allow_partial else 1)


@evaluate_app.command(epilog=examples("flow3r evaluate benchmark sintel --data downloads/sintel"))
def benchmark(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="kinetics, epic, sintel, bonn, co3d, scannet, nrgbd, 7scenes, "
            "tum_dynamics, kitti, euroc",
        ),
    ],
    data: Annotated[Path, typer.Option("--data", "-d", help="folder of the download")],
    model: Model = None,
    config: ConfigFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Score a model on a benchmark, beside the published rows."""
    from flow3r_ros.evaluation.benchmarks.run import evaluate_benchmark, render_benchmark
    from flow3r_ros.network.runner import open_predictor

    settings = settings_of(config, model, changes)
    result = evaluate_benchmark(name, data, open_predictor(settings.model), settings)
    print(json.dumps(result, default=str) if as_json else render_benchmark(result))


@evaluate_app.command(epilog=examples("flow3r evaluate scenes --data scenes"))
def scenes(
    data: Annotated[
        Path,
        typer.Option(
            "--data", "-d", help="folder of the held-out scenes; rendered there the first time"
        ),
    ],
    model: Model = None,
    config: ConfigFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Score a network by itself on held-out synthetic scenes, beside what costs nothing."""
    from flow3r_ros.training.scenes.scores import evaluate_on_scenes

    print_result(evaluate_on_scenes(settings_of(config, model, changes).model, data), as_json)


@evaluate_app.command(epilog=examples("flow3r evaluate recording bag --output page.html"))
def recording(
    source: Annotated[
        Path,
        typer.Argument(metavar="INPUT", help="rosbag, video, image folder or clip folder"),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="HTML page to write")
    ] = None,
    reference: Annotated[Path | None, typer.Option(help="TUM file of true camera poses")] = None,
    truth_topic: Annotated[
        str | None, typer.Option(help="topic of the bag with true poses")
    ] = None,
    depth_topic: Annotated[
        str | None, typer.Option(help="topic of the bag with true depth")
    ] = None,
    camera: Annotated[Path | None, typer.Option(help="camera.json")] = None,
    max_frames: MaxFrames = None,
    offset: Annotated[
        float,
        typer.Option(
            help="seconds added to the recording's stamps, for true poses in another time base"
        ),
    ] = 0.0,
    model: Model = None,
    topic: Topic = None,
    config: ConfigFile = None,
    changes: Changes = None,
    as_json: AsJson = False,
) -> None:
    """Judge a recording of yours by its truth, or by its own pictures where it has none."""
    from flow3r_ros.evaluation.recording import evaluate_recording
    from flow3r_ros.evaluation.recording_checks import check_rows, render_rows
    from flow3r_ros.network.runner import open_predictor

    settings = settings_of(config, model, changes)
    predictor = open_predictor(settings.model)
    result = evaluate_recording(
        source,
        predictor,
        settings,
        output,
        reference,
        truth_topic,
        depth_topic,
        topic,
        camera,
        max_frames,
        offset,
    )
    print(json.dumps(result, default=str) if as_json else render_rows(check_rows(result)))
    if output is not None and not as_json:
        print_written((output, "opens in any browser, without network"))
