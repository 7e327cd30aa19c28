"""A run or a replay as it is watched in rerun while it goes."""

from __future__ import annotations

from flow3r_ros.odometry.cloud import worth_showing
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.mapped import MapOfRun
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.report.record import RunRecord
from flow3r_ros.report.scene import truth_of
from flow3r_ros.types import Estimate

TRUTH_EVERY = 30
"""frames after which the truth is laid onto the way anew"""


class Watch:
    """Shows each estimate, the corners it was followed by, the loops known by then and the truth,
    where there is one."""

    def __init__(
        self, log: RerunLog, engine: Engine, record: RunRecord, mapped: MapOfRun | None
    ) -> None:
        self._log, self._engine, self._record, self._mapped = log, engine, record, mapped
        self._loops = 0

    def add(self, estimate: Estimate) -> None:
        """An estimate that the record has taken in."""
        edges = self._engine.config.cloud.edge_ratio
        self._log.add(estimate, worth_showing(estimate, edges))
        self._log.tracks(*self._engine.corners, estimate.camera)
        loops = self._mapped.loops() if self._mapped else []
        if len(loops) != self._loops:
            self._loops = len(loops)
            self._log.loops(loops)
        if self._record.reference is not None and len(self._record) % TRUTH_EVERY == 0:
            self.finish()

    def finish(self) -> None:
        """Lay the truth onto the whole way."""
        truth = truth_of(self._record)
        if truth is not None:
            self._log.truth(truth)
