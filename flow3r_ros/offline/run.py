"""`flow3r run`: a source through the engine into a run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import Source, open_source
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.drive import Timing, drive
from flow3r_ros.offline.mapped import MapOfRun, map_of_run
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.offline.results import RunFolder
from flow3r_ros.offline.resume import Keeper, OnInterrupt, load_state
from flow3r_ros.offline.summary import identity_of, summarise, title_of
from flow3r_ros.offline.watch import Watch
from flow3r_ros.paths import OutputFolder, as_folder
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.words import camera_in_words
from flow3r_ros.types import Estimate, Predictor
from flow3r_ros.wire.tum import read_tum

log = logging.getLogger(__name__)

GROUND_TRUTH = "groundtruth.tum"


def run(
    source: Source,
    engine: Engine,
    output: Path | OutputFolder,
    arguments: dict[str, Any] | None = None,
    quiet: bool = False,
    save_confidence: bool = False,
    on_interrupt: OnInterrupt = "discard",
    state: dict[str, Any] | None = None,
    watch: RerunLog | None = None,
    mapped: MapOfRun | None = None,
) -> dict[str, Any]:
    """Drive an open source through the engine and write the run folder `output` (a path, or a
    folder reserved before), complete or not at all.

    `arguments` is what `run.yaml` records beside the engine's configuration; `save_confidence` also
    writes `confidence/`. With `on_interrupt` keep, checkpoints are written, and Ctrl-C ends the run
    with a folder that is complete up to there and says `partial` in its summary; `state`
    (`resume.load_state`) goes on from one. `watch` shows every estimate as it comes; `mapped` is
    the map that the engine's keyframes go to, where one is wanted. Returns the content of
    `summary.json`. Raises OutputError when the folder exists or cannot be written, InputError when
    no frame could be used, and what the source raises.
    """
    remembered = state or {}
    record = remembered.get("record") or _begin_record(source.path)
    timing = remembered.get("timing") or Timing()
    identity = identity_of(engine, arguments or {})
    with (
        as_folder(output) as unfinished,
        Keeper(unfinished.path, identity, on_interrupt) as keeper,
    ):
        folder = RunFolder(unfinished.path, record, save_confidence, remembered.get("results"))
        skip = remembered.get("events", 0)
        if remembered:
            log.info("going on after frame %d", len(record))
            engine.restore(remembered["engine"])
            if mapped is not None:
                mapped.restore(remembered["mapped"])
        keeper.changes = lambda: folder.conversions
        keeper.state = lambda: {
            "engine": engine.snapshot(),
            "mapped": mapped.snapshot() if mapped else None,
            "record": record,
            "results": folder.snapshot(),
            "timing": timing,
        }

        shown = Watch(watch, engine, record, mapped) if watch is not None else None

        def take(estimate: Estimate) -> None:
            folder.add(estimate)
            if shown is not None:
                shown.add(estimate)

        try:
            both, see = (mapped.beside(take), mapped.see) if mapped else (take, None)
            drive(source, engine, both, quiet, timing, skip, keeper.stop, see)
            if shown is not None:
                shown.finish()
            summary = summarise(source, engine, record, timing)
            if mapped is not None:
                summary |= mapped.write(unfinished.path, engine.scale, record, bool(keeper.stopped))
                summary["stage_ms_per_frame"] |= mapped.stage_ms(len(record))
            log.info("%s: camera %s", source.path.name, camera_in_words(summary["camera"]))
            if keeper.stopped:
                summary["partial"] = {"frames": len(record), "reason": keeper.stopped}
            points = engine.map.points() if engine.map is not None else None
            folder.finish(
                summary, engine.config, {**(arguments or {}), "notes": source.notes}, points
            )
            keeper.finished()
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
    on_interrupt: OnInterrupt = "discard",
    resume: bool | None = None,
    watch: RerunLog | None = None,
    refine: bool = False,
    episode: int | None = None,
) -> dict[str, Any]:
    """`flow3r run`: open everything that `settings` name, run, and return the summary.

    `resume` True goes on with what an interrupted run left on this output, False replaces it, None
    refuses; `refine` adjusts all keyframes together afterwards. Raises Flow3rError subclasses only.
    """
    with_odometry = settings.scale.source == "odometry"
    folder = OutputFolder(output, resume=resume)
    with (
        folder.reserve(),
        open_source(
            source,
            topic,
            camera_file,
            every,
            max_frames,
            odometry=with_odometry,
            imu="" if settings.tracking.imu else None,
            episode=episode,
        ) as opened,
    ):
        arguments = {
            "input": str(source),
            "camera": str(camera_file or ""),
            "topic": topic or "",
            "every": every,
            "max_frames": max_frames,
            "save_confidence": save_confidence,
            "refine": refine,
            "episode": episode,
        }
        with (
            map_of_run(settings.slam, refine, quiet) as mapped,
            Engine(
                open_predictor(settings.model), settings, mapped.mapper.take if mapped else None
            ) as engine,
        ):
            state = None
            if resume and folder.interrupted is not None:
                state = load_state(folder.interrupted, identity_of(engine, arguments))
            elif resume:
                log.info("nothing to go on with at %s: the run begins at the first frame", output)
            return run(
                opened,
                engine,
                folder,
                arguments,
                quiet,
                save_confidence,
                on_interrupt,
                state,
                watch,
                mapped,
            )


def _begin_record(path: Path) -> RunRecord:
    record = RunRecord(title_of(path))
    record.reference = _ground_truth(path)
    return record


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
