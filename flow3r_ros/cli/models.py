"""`flow3r models`: list, inspect, import, fetch and verify model folders."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from flow3r_ros.cli.console import AsJson, print_result
from flow3r_ros.errors import printable

models_app = typer.Typer(
    help="List, inspect, import, fetch and verify models.", no_args_is_help=True
)


@models_app.command("list")
def models_list(as_json: AsJson = False) -> None:
    """Every model folder and whether its weights are here."""
    from flow3r_ros.network.catalog import describe, list_models

    found = [describe(folder) for folder in list_models()]
    if as_json:
        print(json.dumps({"models": found}, default=str))
        return
    for entry in found:
        weights = (
            "weights here"
            if entry["weights"]
            else f"no weights: flow3r models fetch {entry['name']}"
        )
        print(
            printable(
                f"{entry['name']:<16} {entry['parameters']:>13,} parameters  {weights}  "
                f"{entry['license_note']}"
            )
        )


@models_app.command("info")
def models_info(
    name: Annotated[str, typer.Argument(help="model name or folder")], as_json: AsJson = False
) -> None:
    """Manifest of one model: source, licence, what it was trained on, metrics."""
    from flow3r_ros.network.catalog import describe, find_model

    print_result(describe(find_model(name)), as_json)


@models_app.command("import")
def models_import(
    file: Annotated[
        Path,
        typer.Argument(help="the official flow3r.bin, or safetensors with config.json beside it"),
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

    print_result(describe(import_model(file, name, replace=replace)), as_json)


@models_app.command("fetch")
def models_fetch(
    name: Annotated[str, typer.Argument(help="model name")] = "flow3r_large",
    yes: Annotated[
        bool, typer.Option("--yes", help="agree to licence, size and folder without being asked")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Download the weights of a model, after showing licence, size and folder; the only command
    that uses the network."""
    from flow3r_ros.network.catalog import describe
    from flow3r_ros.network.hub import Offer, fetch

    def agree(offer: Offer) -> bool:
        for line in offer.in_words():
            typer.echo(printable(line), err=True)
        if not yes and not sys.stdin.isatty():
            raise typer.BadParameter("there is no terminal to ask at: read the above, give --yes")
        return yes or typer.confirm("Download it under this licence?", err=True)

    print_result(describe(fetch(name, agree=agree)), as_json)


@models_app.command("verify")
def models_verify(
    name: Annotated[str, typer.Argument(help="model name or folder")], as_json: AsJson = False
) -> None:
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
