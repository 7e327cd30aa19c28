"""`flow3r run`: a source through the engine into a run folder. `drive` is the loop that replay and
scoreboards share."""

from __future__ import annotations

import logging
import resource
from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import Source, open_source
from flow3r_ros.errors import FrameError, InputError
from flow3r_ros.geometry.camera import default_camera, pinhole
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.mapped import MapOfRun, map_of_run
from flow3r_ros.offline.progress import FrameProgress
from flow3r_ros.offline.results import RunFolder
from flow3r_ros.paths import OutputFolder, as_folder
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Camera, Estimate, Frame, Predictor
from flow3r_ros.wire.tum import read_tum

log = logging.getLogger(__name__)

GROUND_TRUTH = "groundtruth.tum"


@dataclass
class Timing:
    """Where the time of a run went: seconds overall, in the engine, waiting for frames, writing
    results; milliseconds of each frame from its handing over to its estimate. `behind_s` is the
    time of a thread that writes beside the engine.

    `unusable` counts, by reason, the images that could not be decoded up to now in the stream.
    """

    wall_s: float = 0.0
    engine_s: float = 0.0
    wait_s: float = 0.0
    write_s: float = 0.0
    behind_s: float = 0.0
    unusable: Counter[str] = field(default_factory=Counter)
    latency_ms: array[float] = field(default_factory=lambda: array("f"))


def drive(
    source: Source,
    engine: Engine,
    take: Callable[[Estimate], None],
    quiet: bool = False,
    timing: Timing | None = None,
    see: Callable[[Frame], None] = lambda _: None,
) -> Timing:
    """Every frame of an open source through the engine, in order, nothing dropped; `take` gets each
    estimate, and `see` each frame before it goes in.

    Odometry samples of the source go to the engine at their place in the stream. `timing` is filled
    as the run goes, and returned.
    """
    timing = timing or Timing()
    begin = ready = perf_counter()
    given: dict[int, float] = {}

    def settle(estimates: Iterable[Estimate]) -> None:
        start = perf_counter()
        for estimate in estimates:
            ready = perf_counter()
            timing.engine_s += ready - start
            for id_ in [id_ for id_ in given if id_ < estimate.frame_id]:
                del given[id_]
            timing.latency_ms.append(1e3 * (ready - given.pop(estimate.frame_id, ready)))
            take(estimate)
            start = perf_counter()
            timing.write_s += start - ready
        timing.engine_s += perf_counter() - start

    with FrameProgress(source.path.name, source.total, quiet) as progress:
        for event in source.events():
            start = perf_counter()
            timing.wait_s += start - ready
            if isinstance(event, Frame):
                see(event)
                given[event.id] = start
                settle(engine.feed(event))
                progress.step()
            elif isinstance(event, FrameError):
                timing.unusable[event.reason] += 1
            else:
                engine.add_odometry(event.stamp_ns, event.T_odom_child)
            ready = perf_counter()
        settle(engine.finish())
    log.info("%s: %s", source.path.name, source.camera.in_words())
    timing.wall_s = perf_counter() - begin
    return timing


def run(
    source: Source,
    engine: Engine,
    output: Path | OutputFolder,
    arguments: dict[str, Any] | None = None,
    quiet: bool = False,
    save_confidence: bool = False,
    mapped: MapOfRun | None = None,
) -> dict[str, Any]:
    """Drive an open source through the engine and write the run folder `output` (a path, or a
    folder reserved before), complete or not at all.

    `arguments` is what `run.yaml` records beside the engine's configuration; `save_confidence`
    also writes `confidence/`; `mapped` is the map that the engine's keyframes go to, where one is
    wanted. Returns the content of `summary.json`. Raises OutputError when the folder exists or
    cannot be written, InputError when no frame could be used, and what the source raises.
    """
    with as_folder(output) as unfinished:
        record = RunRecord(title_of(source.path))
        record.reference = _ground_truth(source.path)
        folder = RunFolder(unfinished.path, record, save_confidence)
        try:
            if mapped is None:
                timing = drive(source, engine, folder.add, quiet)
            else:
                timing = drive(source, engine, mapped.beside(folder.add), quiet, see=mapped.see)
            summary = summarise(source, engine, record, timing)
            if mapped is not None:
                summary |= mapped.write(unfinished.path, engine.scale, record)
            points = engine.map.points() if engine.map is not None else None
            folder.finish(
                summary, engine.config, {**(arguments or {}), "notes": source.notes}, points
            )
        finally:
            folder.close()
    return summary


def run_to_folder(
    source: Path,
    output: Path,
    settings: Config,
    open_predictor: Callable[[ModelSettings], Predictor],
    camera_file: Path | None = None,
    topic: str | None = None,
    every: int = 1,
    max_frames: int | None = None,
    quiet: bool = False,
    save_confidence: bool = False,
    refine: bool = False,
) -> dict[str, Any]:
    """`flow3r run`: open everything that `settings` name, run, and return the summary; `refine`
    adjusts all keyframes together afterwards. Raises Flow3rError subclasses only."""
    with_odometry = settings.scale.source == "odometry"
    folder = OutputFolder(output)
    with (
        folder.reserve(),
        open_source(
            source, topic, camera_file, every, max_frames, odometry=with_odometry
        ) as opened,
    ):
        arguments = {
            "input": str(source),
            "camera": str(camera_file or ""),
            "topic": topic or "",
            "every": every,
            "max_frames": max_frames,
            "refine": refine,
        }
        with (
            map_of_run(settings.slam, refine, quiet) as mapped,
            Engine(
                open_predictor(settings.model), settings, mapped.mapper.take if mapped else None
            ) as engine,
        ):
            return run(opened, engine, folder, arguments, quiet, save_confidence, mapped)


def summarise(source: Source, engine: Engine, record: RunRecord, timing: Timing) -> dict[str, Any]:
    """The content of `summary.json`, keys as in the contracts. Raises InputError when no frame was
    estimated."""
    drops = source.drops + engine.drops
    if not len(record):
        raise InputError(
            f"{source.path}: no frame could be used ({dict(drops) or 'none was read'})",
            "check the input",
        )
    stages = {stage: float(np.median(values)) for stage, values in record.stage_ms.items()}
    stages["decode"] = 1e3 * source.decode_s / max(engine.frames_in, 1)
    stages["write"] = 1e3 * timing.write_s / len(record)
    return {
        "frames_in": engine.frames_in + sum(source.drops.values()),
        "frames_estimated": len(record),
        "frames_dropped": dict(drops),
        "seams": engine.seams,
        "seams_refused": engine.seams_refused,
        "camera": describe_camera(source, engine),
        "segments": [
            {"first": one.first_frame, "last": one.last_frame, "reason": one.reason}
            for one in engine.segments
        ],
        "scale_state": engine.scale.state.value,
        "tracking_states": dict(engine.tracking_states),
        "pose_sources": dict(engine.pose_sources),
        "lost_spans": record.history.lost_spans(),
        "relocalisations": record.history.relocalisations(),
        "fps": round(len(record) / timing.wall_s, 3),
        "latency_ms": {
            name: round(float(np.percentile(timing.latency_ms, share)), 3)
            for name, share in (("p50", 50), ("p95", 95))
        },
        "stage_ms": {stage: round(value, 3) for stage, value in stages.items()},
        "peak_rss_mb": round(peak_rss_mb(), 1),
        **describe_predictor(engine.predictor),
    }


def describe_camera(source: Source, engine: Engine) -> dict[str, Any]:
    """Which camera the last frames had: `source` (info_k, info_p, file, estimated, assumed),
    `model`, `fx`, `fy`, `cx`, `cy` in pixels of the image as it came, `rectified` the same of the
    pinhole that it is rectified to, and `why`."""
    choice = source.camera
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


def _ground_truth(path: Path) -> Any:
    found = next(
        (
            folder / GROUND_TRUTH
            for folder in (path, path.parent)
            if (folder / GROUND_TRUTH).is_file()
        ),
        None,
    )
    return read_tum(found) if found else None
