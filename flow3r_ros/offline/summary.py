"""The content of `summary.json`: what a run did, with which camera and model, how fast."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.datasets.sources import Source
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import default_camera, pinhole
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.odometry.focal import misfit
from flow3r_ros.offline.drive import Timing
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.words import unit_of
from flow3r_ros.types import Camera, Predictor
from flow3r_ros.wire.camera_choice import CameraChoice


def summarise(source: Source, engine: Engine, record: RunRecord, timing: Timing) -> dict[str, Any]:
    """The content of `summary.json`, keys as in the contracts. Raises InputError when no frame was
    estimated."""
    drops = source.drops + engine.drops
    if not len(record):
        raise InputError(
            f"{source.path}: no frame could be used ({dict(drops) or 'none was read'})",
            "check the input",
        )
    over_run = {stage: sum(values) / len(record) for stage, values in record.stage_ms.items()}
    over_run["decode"] = 1e3 * source.decode_s / max(engine.frames_in, 1)
    over_run["write"] = 1e3 * timing.write_s / len(record)
    median = {stage: float(np.median(values)) for stage, values in record.stage_ms.items()}
    median |= {stage: over_run[stage] for stage in ("decode", "write")}
    state = engine.scale.state
    return {
        "frames_in": engine.frames_in + sum(source.drops.values()),
        "frames_estimated": len(record),
        "frames_dropped": dict(drops),
        "seams": engine.seams,
        "seams_refused": engine.seams_refused,
        "camera": describe_camera(source.camera, engine),
        "segments": [
            {"first": one.first_frame, "last": one.last_frame, "reason": one.reason}
            for one in engine.segments
        ],
        "scale_state": state.value,
        "unit": unit_of({"scale_state": state.value}),
        "notes": list(source.notes),
        "tracking_states": dict(engine.tracking_states),
        "pose_sources": dict(engine.pose_sources),
        "lost_spans": record.history.lost_spans(),
        "relocalisations": record.history.relocalisations(),
        "fps": round(len(record) / timing.wall_s, 3),
        "latency_ms": {
            name: round(float(np.percentile(timing.latency_ms, share)), 3)
            for name, share in (("p50", 50), ("p95", 95))
        },
        "stage_ms": {stage: round(value, 3) for stage, value in median.items()},
        "stage_ms_per_frame": {stage: round(value, 3) for stage, value in over_run.items()},
        "peak_rss_mb": round(peak_rss_mb(), 1),
        **describe_predictor(engine.predictor),
    }


def describe_camera(choice: CameraChoice, engine: Engine) -> dict[str, Any]:
    """What became of a choice of camera: `source` (info_k, info_p, file, estimated, assumed),
    `model`, `fx`, `fy`, `cx`, `cy` in pixels of the image as it came, `rectified` the same of the
    pinhole that it is rectified to, `why`, and `focal` how long the lens proved to be over that,
    with the 1-sigma `focal_sigma` of its logarithm (0: nothing was learnt) and its radial
    distortion `bend` beyond the given; `misfit` in words where the given one is wrong."""
    kind, why, camera = choice.source, choice.why, choice.camera or engine.assumed_camera
    if camera is None:
        return {"source": kind, "why": why}
    if choice.camera is None and camera == default_camera(camera.width, camera.height):
        kind, why = "assumed", f"{why}; not observable, 0.9 of the longer side is assumed"
    flat = pinhole(camera)
    return {
        "source": kind,
        "model": camera.distortion_model,
        **_intrinsics(camera),
        "rectified": _intrinsics(flat),
        "why": why,
        "focal": round(engine.focal, 4),
        "focal_sigma": round(engine.focal_sigma, 4),
        "bend": round(engine.bend, 5),
        "misfit": misfit(engine.focal, engine.focal_sigma) if choice.camera else "",
    }


def _intrinsics(camera: Camera) -> dict[str, float]:
    return {name: round(float(getattr(camera, name)), 3) for name in ("fx", "fy", "cx", "cy")}


def peak_rss_mb() -> float:
    """Peak resident memory of this program in MB (Linux: VmHWM, since ru_maxrss also remembers the
    parent it was started from)."""
    try:
        status = Path("/proc/self/status").read_text(encoding="utf-8")
        return next(
            int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM")
        )
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def describe_predictor(predictor: Predictor) -> dict[str, str]:
    """`device`, `model`, `weights_sha256` and `weights_license` of a predictor; empty where it has
    no manifest."""
    manifest = getattr(predictor, "manifest", None)
    return {
        "device": str(getattr(predictor, "device", "cpu")),
        "model": predictor.name,
        "weights_sha256": str(getattr(manifest, "sha256", "")),
        "weights_license": str(getattr(manifest, "license", "")),
    }


def title_of(path: Path) -> str:
    """Name of a clip: that of its folder where the file is merely called frames."""
    return path.parent.name if path.stem == "frames" else path.stem


def identity_of(engine: Engine, arguments: dict[str, Any]) -> dict[str, Any]:
    """What has to be the same when a run is gone on with; the input by its name and size."""
    source = Path(arguments["input"]) if arguments.get("input") else None
    files = [] if source is None else [source] if source.is_file() else [*source.glob("*")]
    return {
        **arguments,
        "input_bytes": sum(file.stat().st_size for file in files if file.is_file()),
        "settings": engine.config.model_dump(),
        "weights_sha256": describe_predictor(engine.predictor)["weights_sha256"],
    }
