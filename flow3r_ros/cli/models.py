"""`flow3r models`: list, inspect, import, fetch, verify and export model folders."""

from __future__ import annotations

import json
import re
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from flow3r_ros.cli.console import AsJson, examples, group, print_result, print_table, print_written
from flow3r_ros.errors import printable

models_app = group(
    "List, inspect, import, fetch, verify and export models.",
    "flow3r models list",
    "flow3r models info flow3r_nano",
)
ModelName = Annotated[str, typer.Argument(metavar="NAME", help="model name or folder")]


@models_app.command("list", epilog=examples("flow3r models list"))
def models_list(as_json: AsJson = False) -> None:
    """Every model folder and whether its weights are here."""
    from flow3r_ros.network.catalog import describe, list_models

    found = [describe(folder) for folder in list_models()]
    if as_json:
        print(json.dumps({"models": found}, default=str))
        return
    rows = [
        [
            entry["name"],
            f"{entry['parameters']:,}",
            "here" if entry["weights"] else f"flow3r models fetch {entry['name']}",
        ]
        for entry in found
    ]
    print_table(["model", "parameters", "weights"], rows)
    for entry in found:
        print(printable(f"{entry['name']}: {entry['license_note']}"))


@models_app.command("info", epilog=examples("flow3r models info flow3r_nano"))
def models_info(name: ModelName, as_json: AsJson = False) -> None:
    """Manifest of one model: source, licence, what it was trained on, metrics."""
    from flow3r_ros.network.catalog import describe, find_model

    print_result(describe(find_model(name)), as_json)


@models_app.command(
    "import", epilog=examples("flow3r models import flow3r.bin --name flow3r_large")
)
def models_import(
    file: Annotated[
        Path,
        typer.Argument(
            metavar="FILE",
            help="the official flow3r.bin, or safetensors with config.json beside it",
        ),
    ],
    name: Annotated[str | None, typer.Option(help="name of the new model folder")] = None,
    replace: Annotated[
        bool, typer.Option("--replace", help="put it in the place of an older model of this name")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Make a model folder of a weights file."""
    from flow3r_ros.network.catalog import describe
    from flow3r_ros.network.checkpoint import import_model

    folder = import_model(file, name, replace=replace)
    print_result(describe(folder), as_json)
    if not as_json:
        print_written((folder.path, f"--model {folder.manifest.name} uses it"))


@models_app.command("fetch", epilog=examples("flow3r models fetch flow3r_large"))
def models_fetch(
    name: Annotated[str, typer.Argument(metavar="NAME", help="model name")] = "flow3r_large",
    yes: Annotated[
        bool, typer.Option("--yes", help="agree to licence, size and folder without being asked")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download the weights of a model, after showing licence, size and folder.

    No other command uses the network unasked."""
    from flow3r_ros.network.catalog import describe
    from flow3r_ros.network.hub import Offer, fetch

    def agree(offer: Offer) -> bool:
        for line in offer.in_words():
            typer.echo(printable(line), err=True)
        if not yes and not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask at: read the above, give --yes")
        return yes or typer.confirm("Download it under this licence?", err=True)

    folder = fetch(name, agree=agree)
    print_result(describe(folder), as_json)
    if not as_json:
        print_written((folder.path, f"--model {folder.manifest.name} uses it"))


@models_app.command("verify", epilog=examples("flow3r models verify flow3r_nano"))
def models_verify(name: ModelName, as_json: AsJson = False) -> None:
    """Check the weights against the manifest's sha256."""
    from flow3r_ros.network.catalog import find_model, verify

    folder = find_model(name)
    print_result(
        {
            "name": folder.manifest.name,
            "sha256": verify(folder),
            "weights": str(folder.weights),
            "ok": True,
        },
        as_json,
    )


class Format(str, Enum):
    """What models are exported as."""

    onnx = "onnx"


@models_app.command("export", epilog=examples("flow3r models export flow3r_nano --image 1280x720"))
def models_export(
    name: ModelName,
    format_: Annotated[
        Format, typer.Option("--format", help="what to write; needs the extra onnx")
    ] = Format.onnx,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            "-o",
            help="new model folder; default: NAME_onnx in the user's models folder",
        ),
    ] = None,
    image: Annotated[
        str,
        typer.Option(
            help="WIDTHxHEIGHT of the camera's images, whose shape the graphs are fixed to",
            metavar="WxH",
        ),
    ] = "640x480",
    flow: Annotated[bool, typer.Option(help="export the flow head as well")] = True,
    replace: Annotated[
        bool, typer.Option("--replace", help="put it in the place of an older model folder")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write a model as ONNX graphs that onnxruntime and TensorRT run, checked against torch."""
    from flow3r_ros.network.catalog import describe
    from flow3r_ros.network.onnx_export import export_model

    found = re.fullmatch(r"([1-9]\d{1,4})x([1-9]\d{1,4})", image)
    if found is None:
        raise typer.BadParameter(f"{printable(image)}: give --image as 640x480")
    size = int(found[1]), int(found[2])
    folder, difference = export_model(name, size, output, with_flow=flow, replace=replace)
    print_result(
        describe(folder) | {"format": format_.value, "difference_to_torch": difference}, as_json
    )
    if not as_json:
        print_written((folder.path, f"--model {folder.path} uses it"))
