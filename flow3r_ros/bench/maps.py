"""Suite `refine`: what loops and refinement make of every clip with truth, and of still images
beside COLMAP."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

from flow3r_ros.bench.faults import SHARED, clip_name
from flow3r_ros.bench.run import CLIP
from flow3r_ros.bench.stills import SETS, StillSet, colmap_poses
from flow3r_ros.config import Config, ModelSettings, load_config
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import EvaluationError, Flow3rError
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.mapped import MAP_FILE, map_of_run
from flow3r_ros.offline.run import GROUND_TRUTH, run
from flow3r_ros.types import Predictor

log = logging.getLogger(__name__)
CLIPS = ("kitti_curve_51", "nerf_fox_50", "sevenscenes_redkitchen")
SHORT = 300
"""frames of a clip that are run, unless thorough"""


def with_map(model: str | None) -> tuple[Predictor, Config]:
    """The model of that name or folder (None: the bundled one), and settings with the map on.
    Raises what opening it raises."""
    from flow3r_ros.network.runner import open_predictor

    settings = ModelSettings(name=model) if model else ModelSettings()
    config = load_config(None, {"slam.enabled": True})
    config.model = settings
    return open_predictor(settings), config


def bench_refine(
    thorough: bool = False, clips: Sequence[Path] | None = None, model: str | None = None
) -> dict[str, Any]:
    """The given clips, or the bundled one and the development clips with truth (SHORT frames of
    each, the whole when `thorough`), and the still images of `stills.SETS`."""
    here = (CLIP, *(SHARED / name for name in CLIPS))
    chosen = list(clips or [path for path in here if (path / GROUND_TRUTH).is_file()])
    predictor, config = with_map(model)
    rows: list[dict[str, Any]] = []
    for clip in chosen:
        log.info("%s", clip_name(clip))
        with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as folder:
            try:
                rows += clip_rows(
                    predictor, clip, config, Path(folder), None if thorough else SHORT
                )
            except Flow3rError as error:
                why = {"median": 0.0, "unit": "", "note": str(error)}
                rows.append({"name": clip_name(clip)} | why)
    for stills in SETS if clips is None else ():
        log.info("%s", stills.name)
        with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as folder:
            rows.append(still_row(predictor, stills, config, Path(folder)))
    return {"rows": rows, "model": predictor.name}


def clip_rows(
    predictor: Predictor, clip: Path, config: Config, folder: Path, most: int | None
) -> list[dict[str, Any]]:
    """ATE of a clip with loops, and with loops and refinement, beside that of the odometry."""
    name, truth = clip_name(clip), clip / GROUND_TRUTH
    rows = []
    for how, refine in (("loops", False), ("loops and --refine", True)):
        out = folder / how.replace(" ", "_")
        summary = _run(predictor, clip, config, out, refine, most)
        before, after = (
            {
                align: evaluate_trajectory(out / file, truth, align=align)
                for align in ("sim3", "se3")
            }
            for file in ("trajectory.tum", MAP_FILE)
        )
        rows.append(
            {
                "name": f"{name}: ATE (Sim(3)) with {how}",
                "median": after["sim3"]["ate_rmse"],
                "unit": "m",
                "baseline": "odometry",
                "baseline_median": before["sim3"]["ate_rmse"],
                "ratio": before["sim3"]["ate_rmse"] / after["sim3"]["ate_rmse"],
                "note": f"SE(3): {after['se3']['ate_rmse']:.3g}, odometry "
                f"{before['se3']['ate_rmse']:.3g}; poses of {after['sim3']['matched']} frames, "
                f"odometry {before['sim3']['matched']}; {summary['loops']['closed']} loops",
            }
        )
    return rows


def still_row(
    predictor: Predictor, stills: StillSet, config: Config, folder: Path
) -> dict[str, Any]:
    """ATE of a set of still images with refinement, in % of the way, beside COLMAP's."""
    images = stills.write(folder / "stills")
    out, work = folder / "out", folder / "colmap"
    work.mkdir()
    truth = images / GROUND_TRUTH
    begun = perf_counter()
    summary = _run(predictor, images, config, out, True, None)
    took = perf_counter() - begun
    found, its_took = colmap_poses(images, work)
    ours, odometry = (_of_way(out / file, truth) for file in (MAP_FILE, "trajectory.tum"))
    row = {
        "name": f"{stills.name}: ATE (Sim(3)) with --refine",
        "median": ours[0],
        "unit": "% of the way",
        "note": f"{ours[1]} of {stills.pictures} pictures have a pose, "
        f"{len(summary['refinement'].get('bridged', ()))} of them bridged; odometry alone "
        f"{odometry[0]:.3g} % ({odometry[1]}); {took:.0f} s",
    }
    if found is None:
        return row | {"note": f"{row['note']}; COLMAP finds nothing"}
    theirs = _of_way(found, truth)
    row["note"] = f"{row['note']}; COLMAP {theirs[1]} pictures, {its_took:.0f} s"
    return row | {
        "baseline": "COLMAP",
        "baseline_median": theirs[0],
        "ratio": theirs[0] / ours[0],
    }


def _of_way(path: Path | Trajectory, truth: Path) -> tuple[float, int]:
    """ATE in % of the way, and the number of poses it is of."""
    found = evaluate_trajectory(path, truth, align="sim3")
    return 100.0 * found["ate_rmse"] / found["path_length"], int(found["matched"])


def _run(
    predictor: Predictor, clip: Path, config: Config, out: Path, refine: bool, most: int | None
) -> dict[str, Any]:
    """Summary of one run. Raises EvaluationError where it leaves no trajectory."""
    predictor.reset()
    with (
        open_source(clip, max_frames=most) as source,
        map_of_run(config.slam, refine, quiet=True) as mapped,
        Engine(predictor, config, mapped.mapper.take if mapped else None) as engine,
    ):
        summary = run(source, engine, out, quiet=True, mapped=mapped)
    if not (out / MAP_FILE).is_file():
        raise EvaluationError(f"{clip_name(clip)}: no frame lies in the map", "look at its report")
    return summary
