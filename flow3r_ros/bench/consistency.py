"""Suite `consistency`: confident lies, NEES of relative poses, rotation over pairs and calibration
of depth confidence, on clips with truth and on held-out synthetic rooms with exact depth."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.bench.faults import CLIPS, SHARED, clip_name
from flow3r_ros.bench.run import CLIP
from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import Flow3rError
from flow3r_ros.evaluation.calibration import Calibration
from flow3r_ros.evaluation.clip_depth import measure_confidence
from flow3r_ros.evaluation.consistency import GAPS, judge_run
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.run import run
from flow3r_ros.report.page import load_record
from flow3r_ros.report.record import RunRecord
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip
from flow3r_ros.types import Frame, Predictor

log = logging.getLogger(__name__)
SCENES = 6
"""synthetic rooms; their seeds are beyond those of training and of `evaluate scenes`"""
FIRST_SEED, SCENE_FRAMES = 990_000, 24
PERIOD_NS = 100_000_000
SHORT = 300
"""frames of a clip that are run, unless thorough"""


def bench_consistency(
    thorough: bool = False, clips: Sequence[Path] | None = None, model: str | None = None
) -> dict[str, Any]:
    """The given clips, or the bundled one and the development clips with truth (SHORT frames of
    each, the whole when `thorough`), and SCENES synthetic rooms."""
    from flow3r_ros.network.runner import open_predictor

    names = (*CLIPS, "nerf_fox_50")
    here = (CLIP, *(SHARED / name for name in names))
    chosen = list(clips or [path for path in here if (path / "groundtruth.tum").is_file()])
    settings = ModelSettings(name=model) if model else ModelSettings()
    predictor, config = open_predictor(settings), Config(model=settings)
    rows = measure_clips(predictor, chosen, config, None if thorough else SHORT)
    return {"rows": rows + measure_scenes(predictor, config), "model": predictor.name}


def bench_rooms(thorough: bool = False, model: str | None = None) -> dict[str, Any]:
    """The synthetic rooms alone; three times as many when `thorough`."""
    from flow3r_ros.network.runner import open_predictor

    settings = ModelSettings(name=model) if model else ModelSettings()
    scenes = 3 * SCENES if thorough else SCENES
    rows = measure_scenes(open_predictor(settings), Config(model=settings), scenes)
    return {"rows": rows, "scenes": scenes, "frames a scene": SCENE_FRAMES}


def measure_clips(
    predictor: Predictor, clips: Sequence[Path], config: Config, max_frames: int | None = None
) -> list[dict[str, Any]]:
    """Rows of every clip; what cannot be measured says why in its row."""
    rows: list[dict[str, Any]] = []
    for clip in clips:
        name = clip_name(clip)
        log.info("%s", name)
        try:
            with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as folder:
                rows += _clip_rows(name, predictor, clip, config, max_frames, Path(folder))
        except Flow3rError as error:
            rows.append({"name": name, "median": 0.0, "unit": "", "note": str(error)})
    return rows


def _clip_rows(
    name: str,
    predictor: Predictor,
    clip: Path,
    config: Config,
    max_frames: int | None,
    folder: Path,
) -> list[dict[str, Any]]:
    predictor.reset()
    with open_source(clip, max_frames=max_frames) as source, Engine(predictor, config) as engine:
        run(source, engine, folder / "run", quiet=True, save_confidence=True)
    record = load_record(folder / "run")
    rows = []
    if record.reference is not None:
        rows += judged_rows(name, judge_run(record, record.reference))
    calibration = measure_confidence(clip, folder / "run") if clip.is_dir() else {}
    return rows + ([calibration_row(name, calibration)] if calibration.get("pixels") else [])


def measure_scenes(
    predictor: Predictor, config: Config, scenes: int = SCENES, frames: int = SCENE_FRAMES
) -> list[dict[str, Any]]:
    """Rows of held-out synthetic rooms, pooled: what no training has seen, with exact depth."""
    calibration, judged = Calibration(), []
    for seed in range(FIRST_SEED, FIRST_SEED + scenes):
        clip = render_clip(
            seed,
            frames=frames,
            width=320,
            height=240,
            motion="handheld",
            textures="held_out",
            movers=0,
            speed=0.03,
            turn=0.02,
        )
        judged.append(_run_scene(clip, predictor, config, calibration))
        log.info("synthetic room %d of %d", len(judged), scenes)
    rows = judged_rows(f"{scenes} synthetic rooms", _median_of(judged))
    summary = calibration.summary()
    return rows + ([calibration_row("synthetic rooms", summary)] if summary["pixels"] else [])


def _run_scene(
    clip: SceneClip, predictor: Predictor, config: Config, calibration: Calibration
) -> dict[str, Any]:
    predictor.reset()
    record = RunRecord("scene")
    stamps = np.arange(len(clip.rgb), dtype=np.int64) * PERIOD_NS
    frames = [
        Frame(index, int(stamp), rgb, clip.camera)
        for index, (stamp, rgb) in enumerate(zip(stamps, clip.rgb, strict=True))
    ]
    with Engine(predictor, config) as engine:
        estimates = [estimate for frame in frames for estimate in engine.step(frame)]
        estimates += engine.finish()
    height, width = estimates[0].depth.shape
    truth = clip.resized(width, height).depth
    for estimate in estimates:
        record.add(estimate)
        calibration.add(estimate.confidence, estimate.depth, truth[estimate.frame_id])
    return judge_run(record, Trajectory(stamps, clip.poses, "scene"))


def judged_rows(name: str, judged: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows of what `evaluation.consistency.judge_run` gave."""
    lies, rotation = judged["lies"], judged["rotation"]
    rows = [
        {
            "name": f"{name}: confident lies",
            "median": 100.0 * lies["share"],
            "unit": "% of frames",
            "note": f"goal: at most 1; TRACKING {lies['tracking']:.0%}",
        },
        {
            "name": f"{name}: RRA@5 over pairs",
            "median": rotation["rra_5"],
            "unit": "",
            "note": f"{rotation['answered']:.0%} of the pairs answered",
        },
    ]
    for gap in GAPS:
        nees = judged["nees"].get(f"gap_{gap}")
        if nees:
            allowed = nees["median_with_truth_jitter"]
            rows.append(
                {
                    "name": f"{name}: NEES/6 over {gap} frames",
                    "median": nees["median"],
                    "p10": nees["p10"],
                    "p90": nees["p90"],
                    "unit": "",
                    "note": f"goal: .3 to 3; {allowed:.3g} with the truth's own jitter allowed for",
                }
            )
    return rows


def calibration_row(name: str, summary: dict[str, Any]) -> dict[str, Any]:
    """The row of a `Calibration.summary`."""
    note = f"goal: at most .08; claimed {summary['claimed']:.2f}, right {summary['right']:.2f}"
    return {
        "calibration": summary,
        "name": f"{name}: calibration error of depth confidence",
        "median": summary["error"],
        "unit": "",
        "note": note,
    }


def _median_of(judged: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Shares are means over the scenes, NEES is the median of their medians."""
    lies = {
        key: float(np.mean([one["lies"][key] for one in judged])) for key in ("share", "tracking")
    }
    rotation = {
        key: float(np.mean([one["rotation"][key] for one in judged]))
        for key in ("rra_5", "answered")
    }
    nees = {}
    for gap in (f"gap_{gap}" for gap in GAPS):
        found = [one["nees"][gap] for one in judged if gap in one["nees"]]
        if found:
            keys = ("median", "p10", "p90", "median_with_truth_jitter")
            middle = {
                key: np.percentile([one[key] for one in found], 50, method="lower") for key in keys
            }
            nees[gap] = {key: float(value) for key, value in middle.items()}
    return {"lies": lies, "rotation": rotation, "nees": nees}
