"""The health of a running node, told on `/diagnostics` once a second, also while no image comes:
rates, latency, age, silence. The message is built by `wire.diagnostics`, as a replay's is."""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.messages import make
from flow3r_ros.ros.worker import Outcome, Tally
from flow3r_ros.wire.diagnostics import ProcessFigures, diagnostics
from flow3r_ros.wire.outputs import RunStatus

SPAN_S = 5.0
"""rates are counted and percentiles taken over this time"""


class Rate:
    """Events per second over the last `SPAN_S` seconds."""

    def __init__(self) -> None:
        self._times: deque[float] = deque(maxlen=2000)

    def tick(self) -> None:
        """Count one event now."""
        self._times.append(time.monotonic())

    def per_second(self) -> float:
        """Hz."""
        start = time.monotonic() - SPAN_S
        return sum(moment >= start for moment in tuple(self._times)) / SPAN_S

    def silence(self) -> float:
        """Seconds since the last event; inf before the first."""
        return time.monotonic() - self._times[-1] if self._times else float("inf")


class Health:
    """What the diagnostics tell; fed from several threads, each field by one."""

    def __init__(self) -> None:
        self.input = Rate()
        self.output = Rate()
        self.lost_in_transport = 0
        self._latencies: deque[tuple[float, float, float]] = deque(maxlen=500)
        self._last: Outcome | None = None
        self._age_ms = float("nan")

    def note(self, outcome: Outcome, age_ms: float) -> None:
        """The messages of an estimate are out, `age_ms` after its stamp."""
        self.output.tick()
        now = time.monotonic()
        self._latencies.append(
            (now, outcome.latency_ms, (now - outcome.received_at) * 1e3 - outcome.engine_ms)
        )
        self._last, self._age_ms = outcome, age_ms

    def message(
        self,
        stamp_ns: int,
        node: str,
        lifecycle: str,
        silence_timeout: float,
        loaded: Loaded | None,
        tally: Tally,
        infos_ignored: int,
        camera: str,
    ) -> Any:
        """The `diagnostic_msgs/DiagnosticArray` of now; silence longer than `silence_timeout`
        seconds is named as the reason why nothing comes out; `camera` says which one is used."""
        (p50, beside), (p95, _) = np.percentile(self._recent(), (50, 95), axis=0)
        figures = ProcessFigures(
            lifecycle=lifecycle,
            waiting=self._waiting(silence_timeout),
            rate_in_hz=self.input.per_second(),
            rate_out_hz=self.output.per_second(),
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
            beside_engine_p50_ms=float(beside),
            age_ms=self._age_ms,
            lost_in_transport=self.lost_in_transport,
            infos_ignored=infos_ignored,
            device=loaded.device if loaded is not None else "",
            memory_mb=loaded.memory_mb() if loaded is not None else 0.0,
        )
        estimate = self._last.estimate if self._last is not None else None
        status = loaded.status(tally) if loaded is not None else RunStatus()
        status = replace(status, camera=camera)
        return diagnostics(make, stamp_ns, node, estimate, status, figures)

    def _recent(self) -> NDArray[np.float64]:
        """`[n, 2]` milliseconds of the last seconds: from reception to estimate, and from reception
        to publication beside the engine."""
        start = time.monotonic() - SPAN_S
        recent = [times for moment, *times in tuple(self._latencies) if moment >= start]
        return np.array(recent or [[np.nan, np.nan]])

    def _waiting(self, silence_timeout: float) -> str:
        silence = self.input.silence()
        if silence <= silence_timeout:
            return ""
        return "no image yet" if silence == float("inf") else f"no image for {silence:.1f} s"
