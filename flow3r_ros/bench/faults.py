"""Suite `faults`: real clips with faults spliced in (`evaluation.faults`), one row a fault."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flow3r_ros.bench.run import CLIP
from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import EvaluationError, Flow3rError
from flow3r_ros.evaluation.faults import Verdict, run_faults
from flow3r_ros.evaluation.faults_clips import read_clip, splices
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.offline.summary import title_of
from flow3r_ros.types import Frame, Predictor
from flow3r_ros.wire.tum import read_tum

log = logging.getLogger(__name__)
SHARED = CLIP.parent.parent.parent / "shared" / "video"
CLIPS = ("sevenscenes_redkitchen", "kitti_curve_51", "visslam_handheld_desk")
"""development clips beside the bundled one, where they are here: indoors with truth, driving with
truth, fast and blurry without"""


def bench_faults(
    thorough: bool = False, clips: Sequence[Path] | None = None, model: str | None = None
) -> dict[str, Any]:
    """Every fault on every clip; the film that is cut to is the next clip. `thorough` is the
    same."""
    from flow3r_ros.network.runner import open_predictor

    chosen = list(clips or default_clips())
    settings = ModelSettings(name=model) if model else ModelSettings()
    return measure_faults(open_predictor(settings), chosen, Config(model=settings))


def default_clips() -> list[Path]:
    """The bundled clip and those of CLIPS that are here."""
    return [path for path in (CLIP, *(SHARED / name for name in CLIPS)) if path.is_dir()]


def measure_faults(predictor: Predictor, clips: Sequence[Path], config: Config) -> dict[str, Any]:
    """Rows by clip and fault, and the counts; a clip that cannot be used says why in a row.

    Raises:
        EvaluationError: there are fewer than two clips, so that there is no other film to cut to.
    """
    if len(clips) < 2:
        raise EvaluationError("a cut needs a second film", "give another clip with --clip")
    rows: list[dict[str, Any]] = []
    results: dict[str, dict[str, Any]] = {}
    for clip, other in zip(clips, [*clips[1:], clips[0]], strict=True):
        name = clip_name(clip)
        try:
            results[name] = _one_clip(predictor, clip, other, config)
        except Flow3rError as error:
            why = {"error": str(error), "note": str(error)}
            rows.append({"name": name, "clip": name, "median": 0.0, "unit": "", **why})
            continue
        rows += [_row(name, verdict) for verdict in results[name]["verdicts"]]
    return {
        "rows": rows,
        "passed": sum(result["passed"] for result in results.values()),
        "faults": sum(result["faults"] for result in results.values()),
        "false alarms": {name: result["false_alarms"] for name, result in results.items()},
        "held against": {name: result["reference"] for name, result in results.items()},
        "model": predictor.name,
    }


def _one_clip(predictor: Predictor, clip: Path, other: Path, config: Config) -> dict[str, Any]:
    with open_source(clip) as source:
        frames = read_clip(source)
    with open_source(other, max_frames=60) as source:
        film: list[Frame] = list(source)

    def told(verdict: Verdict) -> None:
        log.info("%s: %s: %s", clip_name(clip), verdict.fault, words_of(vars(verdict)))

    return run_faults(splices(frames, film), predictor, config, truth_of(clip), told)


def truth_of(clip: Path) -> Trajectory | None:
    """The `groundtruth.tum` in or beside a clip."""
    folders = (clip, clip.parent) if clip.is_file() else (clip,)
    paths = [folder / "groundtruth.tum" for folder in folders]
    return next((read_tum(path) for path in paths if path.is_file()), None)


def clip_name(clip: Path) -> str:
    """Name of the clip as the scoreboard has it."""
    return f"{clip.parent.name}_clip" if clip.name == "clip" else title_of(clip)


def words_of(verdict: dict[str, Any]) -> str:
    """A verdict in a line."""
    if verdict["error"]:
        return f"failed: {verdict['error']}"
    parts = ["ok" if verdict["passed"] else "NOT ok"]
    if verdict["expect"].startswith("nothing"):
        return f"{parts[0]}, {verdict['alarms']:.1%} false alarms"
    noticed = verdict["noticed"]
    parts.append("not noticed" if noticed is None else f"noticed at frame {noticed}")
    if verdict["right"] and noticed is None:
        parts.append("tracked right")
    if verdict["lies"]:
        parts.append(f"{verdict['lies']} lies")
    if verdict["returns"]:
        back = verdict["recovered"]
        parts.append("never back" if back is None else f"back at frame {back}")
    if verdict["lost"]:
        parts.append(f"{verdict['lost']} lost")
    if verdict["reason"]:
        parts.append(f"said: {verdict['reason']}")
    return ", ".join(parts)


def _row(clip: str, verdict: dict[str, Any]) -> dict[str, Any]:
    """`median`: frames until it was noticed (0: not)."""
    return {
        "clip": clip,
        "verdict": verdict,
        "name": f"{clip}: {verdict['fault']}",
        "median": float(verdict["noticed"] or 0),
        "unit": "frames",
        "note": words_of(verdict),
    }
