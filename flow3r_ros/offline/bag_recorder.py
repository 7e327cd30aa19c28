"""Estimates as the node's messages in a bag, and how a bag that was interrupted is gone on with.

A state knows how many messages were written before it. They are copied out of the earlier file,
record by record as it was written, into a new one: an unfinished file has no index, and a finished
part holds messages beyond the state.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from flow3r_ros.bags.salvage import SalvagedMcap
from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter, WriteBehind
from flow3r_ros.datasets.sources import BagSource
from flow3r_ros.errors import BagError, OutputError
from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.drive import Timing
from flow3r_ros.offline.summary import describe_camera, describe_predictor
from flow3r_ros.offline.watch import Watch
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.words import camera_in_words
from flow3r_ros.types import Bool, Estimate
from flow3r_ros.wire import diagnostics
from flow3r_ros.wire.outputs import TOPICS, Outputs, RunStatus

NODE = "/flow3r"
"""name of the node whose topics the bag carries"""
LATCHED = ("~/map", "/tf_static")
ASIDE = "earlier"
"""folder, inside the work, of the file whose messages are copied"""


def bag_topic(topic: str) -> str:
    """Absolute name of a node topic: `~/odometry` is `/flow3r/odometry`."""
    return topic.replace("~", NODE, 1)


def holds(folder: Path, name: str, state: Mapping[str, Any]) -> bool:
    """Whether an interrupted bag `name` in `folder` has the messages that a state knows."""
    return _earlier(folder, name, state) is not None


def put_aside(folder: Path, name: str, state: Mapping[str, Any]) -> SalvagedMcap:
    """The file with the messages that a state knows, moved out of the way of the new one. Raises
    OutputError when there is none."""
    file = _earlier(folder, name, state)
    if file is None:
        raise OutputError(f"{folder}: messages are missing", "begin anew with --restart")
    aside = folder / ASIDE / f"{name}.mcap"
    if file != aside:
        aside.parent.mkdir(exist_ok=True)
        file.replace(aside)
    shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "metadata.yaml").unlink(missing_ok=True)
    (folder / f"{name}.mcap").unlink(missing_ok=True)
    return SalvagedMcap(aside)


def _earlier(folder: Path, name: str, state: Mapping[str, Any]) -> Path | None:
    wanted = int(state["recorder"]["messages"])
    for file in (folder / name, folder, folder / ASIDE):
        path = file / f"{name}.mcap"
        if path.is_file():
            known = SalvagedMcap(path).connections
            if sum(connection.msgcount for connection in known) >= wanted:
                return path
    return None


class BagRecorder:
    """Writes the messages of each estimate; everything it knows comes from the stream up to that
    estimate."""

    def __init__(
        self,
        source: BagSource,
        engine: Engine,
        writer: BagWriter,
        record: RunRecord,
        timing: Timing,
        watch: Watch | None,
    ) -> None:
        self._source, self._engine, self._writer = source, engine, writer
        self._record, self._timing, self._watch = record, timing, watch
        self.behind = WriteBehind(writer)
        self._card = describe_predictor(engine.predictor)
        self._process = diagnostics.ProcessFigures(device=self._card["device"])
        self._outputs: Outputs | None = None
        self._optical = ""
        self._messages = 0
        self._segment = 0
        self._diagnosed_ns = -diagnostics.PERIOD_NS
        for topic, type_name in {**TOPICS, "/diagnostics": diagnostics.TYPE}.items():
            writer.add(bag_topic(topic), type_name, latched=topic in LATCHED)

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs; everything given so far is with the writer."""
        self.behind.flush()
        return {
            "optical": self._optical,
            "messages": self._messages,
            "outputs": self._outputs.snapshot() if self._outputs else None,
            "segment": self._segment,
            "diagnosed_ns": self._diagnosed_ns,
        }

    def restore(self, snapshot: dict[str, Any], earlier: SalvagedMcap) -> None:
        """Go on from a snapshot whose messages are the first ones of the bag `earlier`."""
        self._segment, self._diagnosed_ns = snapshot["segment"], snapshot["diagnosed_ns"]
        if snapshot["outputs"] is not None:
            self._outputs = self._begin(snapshot["optical"])
            self._outputs.restore(snapshot["outputs"])
        kept = islice(earlier.messages(earlier.connections), snapshot["messages"])
        for connection, stamp_ns, data in kept:
            self._write(connection.topic, stamp_ns, data)

    def take(self, estimate: Estimate) -> None:
        """Record and write one estimate."""
        self._record.add(estimate)
        if self._outputs is None:
            self._outputs = self._begin(estimate.source_frame)
            static = self._source.reader.static
            if len(static):
                message = static.message(make, estimate.stamp_ns)
                self._write("/tf_static", estimate.stamp_ns, message)
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
            self._write(bag_topic(topic), estimate.stamp_ns, message)
        if self._watch:
            self._watch.add(estimate)

    def _write(self, topic: str, stamp_ns: int, message: Any) -> None:
        self._messages += 1
        self.behind.write(topic, stamp_ns, message)

    def _begin(self, source_frame: str) -> Outputs:
        """Look up the extrinsics the configuration asks for, and announce static transforms."""
        self._optical = source_frame
        config, static = self._engine.config, self._source.reader.static
        extrinsics = None
        if config.node.base_frame:
            optical = config.node.camera_frame or source_frame
            extrinsics = static.lookup(config.node.base_frame, optical)
            if extrinsics is None:
                what = (
                    f"{self._source.path}: no static transform {config.node.base_frame} -> "
                    f"{optical} on /tf_static"
                )
                raise BagError(what, "record /tf_static, or leave node.base_frame empty")
        if len(static):
            self._writer.add("/tf_static", "tf2_msgs/msg/TFMessage", latched=True)
        return Outputs(make, config.node, self._worth_showing, extrinsics, config.obstacles)

    def _worth_showing(self, estimate: Estimate) -> Bool:
        return worth_showing(estimate, self._engine.config.cloud.edge_ratio)

    def _status(self, frame_id: int) -> RunStatus:
        engine, unusable = self._engine, self._timing.unusable
        return RunStatus(
            received=engine.frames_in + sum(unusable.values()),
            estimated=len(self._record),
            drops=unusable + engine.drops,
            seams_refused=engine.seams_refused,
            camera=camera_in_words(describe_camera(self._source.camera_of(frame_id), engine)),
            model=self._card["model"],
            weights_sha256=self._card["weights_sha256"],
            weights_license=self._card["weights_license"],
        )
