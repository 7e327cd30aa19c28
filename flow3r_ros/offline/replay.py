"""`flow3r replay`: a bag through the engine of the node, every frame in order, into a bag with the
node's topics.

Messages come from `wire.outputs`, as the node's do, and depend on frames and settings alone: the
same bag, configuration and device give the same bytes. What depends on the clock (latency, age) is
zero.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import BagSource
from flow3r_ros.errors import Flow3rError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.bag_recorder import ASIDE, BagRecorder, holds, put_aside
from flow3r_ros.offline.drive import Timing, drive
from flow3r_ros.offline.mapped import MapOfRun, map_of_run
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.offline.results import write_summary
from flow3r_ros.offline.resume import Keeper, OnInterrupt, load_state
from flow3r_ros.offline.summary import identity_of, summarise, title_of
from flow3r_ros.offline.watch import Watch
from flow3r_ros.paths import OutputFolder, as_folder, is_interrupted
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.words import camera_in_words
from flow3r_ros.types import Predictor

_log = logging.getLogger(__name__)


def replay(
    source: BagSource,
    engine: Engine,
    output: Path | OutputFolder,
    arguments: dict[str, Any] | None = None,
    rerun: Path | None = None,
    quiet: bool = False,
    timing: Timing | None = None,
    on_interrupt: OnInterrupt = "discard",
    state: dict[str, Any] | None = None,
    mapped: MapOfRun | None = None,
) -> dict[str, Any]:
    """Drive an open bag through the engine into the rosbag2 folder `output` (a path, or a folder
    reserved before), with `summary.json` and `report.html` inside it.

    `arguments` is what `run.yaml` records beside the engine's configuration; `rerun` names a
    recording to write; `timing` is filled as the run goes; `on_interrupt` and `state` are those of
    `offline.run.run`; `mapped` is the map that the engine's keyframes go to, where one is wanted.
    Returns the summary. Raises OutputError
    when the folder exists or cannot be written, InputError when no frame could be used, and what
    the bag raises.
    """
    remembered = state or {}
    record = remembered.get("record") or RunRecord(title_of(source.path))
    timing = remembered.get("timing") or timing or Timing()
    identity = identity_of(engine, arguments or {})
    with (
        as_folder(output) as unfinished,
        Keeper(unfinished.path, identity, on_interrupt) as keeper,
    ):
        bag = unfinished.path / unfinished.final.name
        earlier = put_aside(unfinished.path, bag.name, remembered) if remembered else None
        with ExitStack() as stack:
            writer = stack.enter_context(BagWriter(bag))
            log = stack.enter_context(RerunLog(rerun, record.title)) if rerun else None
            watch = Watch(log, engine, record, mapped) if log else None
            recorder = BagRecorder(source, engine, writer, record, timing, watch)
            stack.enter_context(recorder.behind)
            if earlier is not None:
                _log.info("going on after frame %d", len(record))
                engine.restore(remembered["engine"])
                recorder.restore(remembered["recorder"], earlier)
                if mapped is not None:
                    mapped.restore(remembered["mapped"])
            keeper.state = lambda: {
                "engine": engine.snapshot(),
                "mapped": mapped.snapshot() if mapped else None,
                "recorder": recorder.snapshot(),
                "record": record,
                "timing": timing,
            }
            skip = remembered.get("events", 0)
            take = recorder.take
            both, see = (mapped.beside(take), mapped.see) if mapped else (take, None)
            drive(source, engine, both, quiet, timing, skip, keeper.stop, see)
        timing.behind_s = recorder.behind.busy_s
        for file in sorted(bag.iterdir()):
            file.rename(unfinished.path / file.name)
        bag.rmdir()
        summary = summarise(source, engine, record, timing)
        _log.info("%s: camera %s", source.path.name, camera_in_words(summary["camera"]))
        if keeper.stopped:
            summary["partial"] = {"frames": len(record), "reason": keeper.stopped}
        if mapped is not None:
            summary |= mapped.write(unfinished.path, engine.scale, record, bool(keeper.stopped))
            summary["stage_ms_per_frame"] |= mapped.stage_ms(len(record))
        write_summary(
            unfinished.path,
            summary,
            engine.config,
            {**(arguments or {}), "notes": source.notes},
            record,
            engine.map.points() if engine.map is not None else None,
        )
        shutil.rmtree(unfinished.path / ASIDE, ignore_errors=True)
        keeper.finished()
    return summary


def replay_bags(
    bags: Sequence[Path],
    output: Path,
    settings: Config,
    open_predictor: Callable[[ModelSettings], Predictor],
    topic: str | None = None,
    camera_file: Path | None = None,
    start: float = 0.0,
    duration: float | None = None,
    every: int = 1,
    rerun: Path | None = None,
    quiet: bool = False,
    on_interrupt: OnInterrupt = "discard",
    resume: bool | None = None,
    refine: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """`flow3r replay`: one bag into `output`, or each of several into a folder of its name below
    `output`.

    Returns the summaries and the failures (one line each), both by output folder; several bags go
    on past a bad one, a single bad bag raises. With several bags, `rerun` gets the bag's name
    appended. `on_interrupt` and `resume` are those of `offline.run.run_to_folder`; of several bags,
    complete ones are left alone when resumed. `refine` adjusts all
    keyframes together after each. Raises Flow3rError subclasses only.
    """
    targets = {output: bags[0]} if len(bags) == 1 else _targets(bags, output)
    if resume and len(bags) > 1:
        for done in [each for each in targets if each.exists() and not is_interrupted(each)]:
            _log.info("%s is complete and stays as it is", done)
            del targets[done]
    folders = {target: OutputFolder(target, resume=resume) for target in targets}
    summaries: dict[str, dict[str, Any]] = {}
    failures: dict[str, str] = {}
    with ExitStack() as reserved:
        for folder in folders.values():
            reserved.enter_context(folder.reserve())
        predictor = open_predictor(settings.model)
        for target, bag in targets.items():
            arguments = {
                "input": str(bag),
                "topic": topic or "",
                "start": start,
                "duration": duration,
                "every": every,
                "refine": refine,
            }
            recording = (
                rerun
                if rerun is None or len(bags) == 1
                else rerun.with_name(f"{rerun.stem}_{target.name}{rerun.suffix}")
            )
            try:
                with_odometry = settings.scale.source == "odometry"
                imu = settings.node.base_frame if settings.tracking.imu else None
                with (
                    BagSource(
                        bag, topic, camera_file, every, None, start, duration, with_odometry, imu
                    ) as source,
                    map_of_run(settings.slam, refine, quiet) as mapped,
                    Engine(predictor, settings, mapped.mapper.take if mapped else None) as engine,
                ):
                    engine.reset()
                    state = _state_of(folders[target], engine, arguments) if resume else None
                    summaries[str(target)] = replay(
                        source,
                        engine,
                        folders[target],
                        arguments,
                        recording,
                        quiet,
                        on_interrupt=on_interrupt,
                        state=state,
                        mapped=mapped,
                    )
                if "partial" in summaries[str(target)]:
                    break
            except Flow3rError as error:
                if len(bags) == 1:
                    raise
                failures[str(target)] = str(error)
    return summaries, failures


def _state_of(
    folder: OutputFolder, engine: Engine, arguments: dict[str, Any]
) -> dict[str, Any] | None:
    """What an interrupted replay remembers; None when there is none."""
    found = folder.interrupted
    if found is None:
        _log.info("nothing to go on with at %s: it begins at the first frame", folder.final)
        return None
    identity = identity_of(engine, arguments)
    return load_state(found, identity, lambda state: holds(found, folder.final.name, state))


def _targets(bags: Sequence[Path], output: Path) -> dict[Path, Path]:
    """A folder below `output` for each bag, numbered where names repeat."""
    targets: dict[Path, Path] = {}
    for bag in bags:
        name = bag.stem if bag.is_file() else bag.name
        candidates = (
            output / (name if count == 1 else f"{name}_{count}")
            for count in range(1, len(bags) + 1)
        )
        targets[next(candidate for candidate in candidates if candidate not in targets)] = bag
    return targets
