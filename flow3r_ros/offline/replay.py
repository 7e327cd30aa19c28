"""`flow3r replay`: a bag through the engine of the node, every frame in order, into a bag with the
node's topics.

Messages come from `wire.outputs`, as the node's do, and depend on frames and settings alone: the
same bag, configuration and device give the same bytes. What depends on the clock (latency, age) is
zero.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter, WriteBehind
from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.datasets.sources import BagSource
from flow3r_ros.errors import BagError, Flow3rError
from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.mapped import MapOfRun, map_of_run
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.offline.results import write_summary
from flow3r_ros.offline.run import Timing, describe_predictor, drive, summarise, title_of
from flow3r_ros.paths import OutputFolder, as_folder
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Bool, Estimate, Predictor
from flow3r_ros.wire import diagnostics
from flow3r_ros.wire.outputs import TOPICS, Outputs, RunStatus

NODE = "/flow3r"
"""name of the node whose topics the bag carries"""
LATCHED = ("~/map", "/tf_static")


def bag_topic(topic: str) -> str:
    """Absolute name of a node topic: `~/odometry` is `/flow3r/odometry`."""
    return topic.replace("~", NODE, 1)


def replay(
    source: BagSource,
    engine: Engine,
    output: Path | OutputFolder,
    arguments: dict[str, Any] | None = None,
    rerun: Path | None = None,
    quiet: bool = False,
    timing: Timing | None = None,
    mapped: MapOfRun | None = None,
) -> dict[str, Any]:
    """Drive an open bag through the engine into the rosbag2 folder `output` (a path, or a folder
    reserved before), with `summary.json` and `report.html` inside it.

    `arguments` is what `run.yaml` records beside the engine's configuration; `rerun` names a
    recording to write; `timing` is filled as the run goes; `mapped` is the map that the engine's
    keyframes go to, where one is wanted. Returns the summary. Raises OutputError
    when the folder exists or cannot be written, InputError when no frame could be used, and what
    the bag raises.
    """
    with as_folder(output) as unfinished:
        record = RunRecord(title_of(source.path))
        bag = unfinished.path / unfinished.final.name
        timing = timing or Timing()
        with ExitStack() as stack:
            writer = stack.enter_context(BagWriter(bag))
            log = stack.enter_context(RerunLog(rerun, record.title)) if rerun else None
            recorder = _Recorder(source, engine, writer, record, timing, log)
            stack.enter_context(recorder.behind)
            if mapped is None:
                drive(source, engine, recorder.take, quiet, timing)
            else:
                drive(source, engine, mapped.beside(recorder.take), quiet, timing, mapped.see)
        timing.behind_s = recorder.behind.busy_s
        for file in sorted(bag.iterdir()):
            file.rename(unfinished.path / file.name)
        bag.rmdir()
        summary = summarise(source, engine, record, timing)
        if mapped is not None:
            summary |= mapped.write(unfinished.path, engine.scale, record)
        write_summary(
            unfinished.path,
            summary,
            engine.config,
            {**(arguments or {}), "notes": source.notes},
            record,
        )
    return summary


class _Recorder:
    """Writes the messages of each estimate; everything it knows comes from the stream up to that
    estimate."""

    def __init__(
        self,
        source: BagSource,
        engine: Engine,
        writer: BagWriter,
        record: RunRecord,
        timing: Timing,
        log: RerunLog | None,
    ) -> None:
        self._source, self._engine, self._writer, self._record, self._timing, self._log = (
            source,
            engine,
            writer,
            record,
            timing,
            log,
        )
        self.behind = WriteBehind(writer)
        self._card = describe_predictor(engine.predictor)
        self._process = diagnostics.ProcessFigures(device=self._card["device"])
        self._outputs: Outputs | None = None
        self._segment = 0
        self._diagnosed_ns = -diagnostics.PERIOD_NS
        for topic, type_name in {**TOPICS, "/diagnostics": diagnostics.TYPE}.items():
            writer.add(bag_topic(topic), type_name, latched=topic in LATCHED)

    def take(self, estimate: Estimate) -> None:
        """Record and write one estimate."""
        self._record.add(estimate)
        if self._outputs is None:
            self._outputs = self._begin(estimate)
        elif estimate.segment != self._segment:
            self._outputs.reset()
        self._segment = estimate.segment
        status = self._status(estimate.frame_id)
        messages = self._outputs.build(estimate, TOPICS, status)
        if not 0 <= estimate.stamp_ns - self._diagnosed_ns < diagnostics.PERIOD_NS:
            self._diagnosed_ns = estimate.stamp_ns
            messages["/diagnostics"] = diagnostics.diagnostics(
                make, estimate.stamp_ns, NODE, estimate, status, self._process
            )
        if (
            self._outputs.map_due(estimate.stamp_ns)
            and self._engine.map is not None
            and len(self._engine.map)
        ):
            messages["~/map"] = self._outputs.map_message(
                estimate.stamp_ns, *self._engine.map.points()
            )
        for topic, message in messages.items():
            self.behind.write(bag_topic(topic), estimate.stamp_ns, message)
        if self._log:
            self._log.add(estimate, self._worth_showing(estimate))

    def _begin(self, estimate: Estimate) -> Outputs:
        """Look up the extrinsics the configuration asks for, and pass the static transforms on."""
        config, static = self._engine.config, self._source.reader.static
        extrinsics = None
        if config.node.base_frame:
            optical = config.node.camera_frame or estimate.source_frame
            extrinsics = static.lookup(config.node.base_frame, optical)
            if extrinsics is None:
                what = (
                    f"{self._source.path}: no static transform {config.node.base_frame} -> "
                    f"{optical} on /tf_static"
                )
                raise BagError(what, "record /tf_static, or leave node.base_frame empty")
        if len(static):
            self._writer.add("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
            self.behind.write(
                "/tf_static", estimate.stamp_ns, static.message(make, estimate.stamp_ns)
            )
        return Outputs(make, config.node, self._worth_showing, extrinsics)

    def _worth_showing(self, estimate: Estimate) -> Bool:
        cloud = self._engine.config.cloud
        return worth_showing(estimate, cloud.min_confidence, cloud.edge_ratio)

    def _status(self, frame_id: int) -> RunStatus:
        engine, unusable = self._engine, self._timing.unusable
        return RunStatus(
            received=engine.frames_in + sum(unusable.values()),
            estimated=len(self._record),
            drops=unusable + engine.drops,
            seams_refused=engine.seams_refused,
            camera=self._source.camera_of(frame_id).in_words(),
            model=self._card["model"],
            weights_sha256=self._card["weights_sha256"],
            weights_license=self._card["weights_license"],
        )


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
    refine: bool = False,
) -> tuple[dict[str, dict[str, Any]], dict[str, str]]:
    """`flow3r replay`: one bag into `output`, or each of several into a folder of its name below
    `output`.

    Returns the summaries and the failures (one line each), both by output folder; several bags go
    on past a bad one, a single bad bag raises. With several bags, `rerun` gets the bag's name
    appended. `refine` adjusts all keyframes together after each. Raises Flow3rError subclasses
    only.
    """
    targets = {output: bags[0]} if len(bags) == 1 else _targets(bags, output)
    folders = {target: OutputFolder(target) for target in targets}
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
                with (
                    BagSource(
                        bag, topic, camera_file, every, None, start, duration, with_odometry
                    ) as source,
                    map_of_run(settings.slam, refine, quiet) as mapped,
                    Engine(predictor, settings, mapped.mapper.take if mapped else None) as engine,
                ):
                    engine.reset()
                    summaries[str(target)] = replay(
                        source, engine, folders[target], arguments, recording, quiet,
                        mapped=mapped,
                    )  # fmt: skip
            except Flow3rError as error:
                if len(bags) == 1:
                    raise
                failures[str(target)] = str(error)
    return summaries, failures


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
