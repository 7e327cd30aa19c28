"""`flow3r bench`: speed and memory beside their baselines, or honesty."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, cast

import typer

from flow3r_ros.cli.console import AsJson, Model, print_written

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
    "corridor": "flow3r_ros.bench.corridor:bench_corridor",
    "loops": "flow3r_ros.bench.loops:bench_loops",
    "refine": "flow3r_ros.bench.maps:bench_refine",
    "relocalisation": "flow3r_ros.bench.relocalisation:bench_relocalisation",
    "map_hour": "flow3r_ros.bench.map_hour:bench_map_hour",
    "rates": "flow3r_ros.bench.live:bench_rates",
    "memory": "flow3r_ros.bench.live:bench_memory",
}
TRUST = {
    "faults": ("clips", "model"),
    "consistency": ("clips", "model"),
    "rooms": ("model",),
    "corridor": (),
    "loops": ("clips", "model"),
    "refine": ("clips", "model"),
    "relocalisation": ("clips", "model"),
    "map_hour": (),
    "rates": (),
    "memory": (),
}
"""suites about trust, maps and the whole node, not the speed of the parts, and the options they
take; they run when they are named"""


def bench(
    suite: Annotated[
        list[str] | None,
        typer.Option("--suite", help=f"{', '.join(SUITES)}; default: all but {', '.join(TRUST)}"),
    ] = None,
    clip: Annotated[
        list[Path] | None,
        typer.Option(
            "--clip",
            help="clips of faults, consistency, loops, refine and relocalisation (video, image "
            "folder, bag); repeat for several; default: bundled one and those of ../shared/video",
        ),
    ] = None,
    model: Model = None,
    write: Annotated[
        Path | None, typer.Option(help="also write this page (docs/performance.md)")
    ] = None,
    thorough: Annotated[
        bool,
        typer.Option(
            "--thorough", help="memory over the full length of time, clips whole; half an hour more"
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Measure speed and memory beside their baselines, or (faults, consistency) honesty."""
    from flow3r_ros.bench.suites import render_suites, run_suites, write_performance
    from flow3r_ros.datasets.identify import identify

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

    for path in clip or ():
        identify(path)  # what is no recording is said before anything is measured

    def load(name: str) -> Callable[[], dict[str, Any]]:
        module, _, function = SUITES[name].partition(":")
        return lambda: cast(
            dict[str, Any], getattr(import_module(module), function)(thorough=thorough, **given)
        )

    result = run_suites({name: load(name) for name in names})
    if write:
        write_performance(write, result)
    print(json.dumps(result, default=str) if as_json else render_suites(result))
    if write and not as_json:
        print_written((write, "measured on this machine"))
    failed = ["error" in measured for measured in result["suites"].values()]
    raise typer.Exit(1 if all(failed) else 0)
