"""`flow3r map`: look at maps on disk, join, refine and export them."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from flow3r_ros.cli.console import (
    AsJson,
    examples,
    group,
    print_result,
    print_written,
    progress,
    quiet,
)

map_app = group("Look at saved maps, join, refine, export them.", "flow3r map info out/map")
MapFolder = Annotated[Path, typer.Argument(metavar="MAP", help="folder of a saved map")]


class Form(str, Enum):
    """Choices of `--format`."""

    ply = "ply"
    pcd = "pcd"
    colmap = "colmap"
    rerun = "rerun"


WRITTEN = {
    Form.ply: "cloud.ply and keyframes.tum",
    Form.pcd: "cloud.pcd and keyframes.tum",
    Form.colmap: "COLMAP opens it",
    Form.rerun: "map.rrd, which rerun opens, and keyframes.tum",
}
"""what an export holds"""


@map_app.command("info", epilog=examples("flow3r map info out/map"))
def map_info(folder: MapFolder, as_json: AsJson = False) -> None:
    """Check a map whole and say what it holds."""
    from flow3r_ros.slam.disk import describe_map

    print_result(describe_map(folder), as_json)


@map_app.command("merge", epilog=examples("flow3r map merge monday/map tuesday/map --output both"))
def map_merge(
    first: MapFolder,
    second: Annotated[Path, typer.Argument(metavar="OTHER", help="the map to join to it")],
    output: Annotated[Path, typer.Option("--output", "-o", help="map to write")],
    as_json: AsJson = False,
) -> None:
    """Join two maps that have places in common, in frame and unit of the first."""
    from flow3r_ros.slam.disk import describe_map, load_map, save_map
    from flow3r_ros.slam.merge import merged

    joined = merged(load_map(first), load_map(second))
    print_result(describe_map(save_map(output, joined)), as_json)
    if not as_json:
        print_written((output, "slam.map takes it"))


@map_app.command("refine", epilog=examples("flow3r map refine out/map --output refined"))
def map_refine(
    folder: MapFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="map to write")],
    as_json: AsJson = False,
) -> None:
    """Adjust all keyframes of a map together (extra `refine`)."""
    from flow3r_ros.slam.disk import load_map, save_map
    from flow3r_ros.slam.merge import refined

    with progress("refinement", quiet(as_json)) as say:
        saved, result = refined(load_map(folder), say)
    save_map(output, saved)
    print_result(
        {
            "map": str(output),
            "keyframes": len(result.poses),
            "points": result.points,
            "observations": result.observations,
            "error_px_before": round(result.before_px, 3),
            "error_px_after": round(result.after_px, 3),
            "held_out_px_before": round(result.held_out_before_px, 3),
            "held_out_px_after": round(result.held_out_after_px, 3),
            "lens_bend_px": round(result.bend_px, 2),
            "turned_deg": round(result.turn_deg, 3),
        },
        as_json,
    )
    if not as_json:
        print_written((output, "slam.map takes it"))


@map_app.command("export", epilog=examples("flow3r map export out/map --output exported"))
def map_export(
    folder: MapFolder,
    output: Annotated[Path, typer.Option("--output", "-o", help="folder to write")],
    form: Annotated[
        Form,
        typer.Option(
            "--format",
            help="ply, pcd: the cloud, and keyframes.tum; colmap: text model with pictures; rerun: "
            "map.rrd, to turn by mouse",
        ),
    ] = Form.ply,
    as_json: AsJson = False,
) -> None:
    """Write the cloud, or poses and pictures, of a map for other programs."""
    from flow3r_ros.offline.map_files import write_cloud
    from flow3r_ros.paths import OutputFolder
    from flow3r_ros.slam.disk import load_map
    from flow3r_ros.slam.export import write_colmap

    saved = load_map(folder)
    points = 0
    with OutputFolder(output) as unfinished:
        if form is Form.colmap:
            write_colmap(unfinished.path, saved)
        else:
            points = write_cloud(unfinished.path, saved, form.value)
    print_result({"output": str(output), "format": form.value, "points": points}, as_json)
    if not as_json:
        print_written((output, WRITTEN[form]))
