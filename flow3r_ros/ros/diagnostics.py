"""`/diagnostics`: rates, latency, age, drops, state, scale, memory, model and licence, once a
second, also while no image comes."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray

from flow3r_ros.ros.messages import make
from flow3r_ros.ros.worker import Outcome, Tally
from flow3r_ros.types import ScaleState, TrackingState

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

    def _recent(self) -> NDArray[np.float64]:
        """`[n, 2]` milliseconds of the last seconds: from reception to estimate, and from reception
        to publication beside the engine."""
        start = time.monotonic() - SPAN_S
        recent = [times for moment, *times in tuple(self._latencies) if moment >= start]
        return np.array(recent or [[np.nan, np.nan]])

    def array(
        self,
        stamp: Any,
        name: str,
        lifecycle: str,
        tally: Tally,
        silence_timeout: float,
        facts: dict[str, str],
    ) -> Any:
        """The `diagnostic_msgs/DiagnosticArray` of now; `facts` are further key-value pairs (model,
        memory, ...)."""
        level, text = self._verdict(lifecycle, silence_timeout)
        (p50, beside), (p95, _) = np.percentile(self._recent(), (50, 95), axis=0)
        values = {
            "lifecycle state": lifecycle,
            "rate in [Hz]": f"{self.input.per_second():.1f}",
            "rate out [Hz]": f"{self.output.per_second():.1f}",
            "latency p50 [ms]": f"{p50:.1f}",
            "latency p95 [ms]": f"{p95:.1f}",
            "beside the engine p50 [ms]": f"{beside:.2f}",
            "result age [ms]": f"{self._age_ms:.1f}",
            "frames received": str(tally.received),
            "frames estimated": str(tally.estimated),
            "frames dropped": str(sum(tally.drops.values())),
            "images lost before the node": str(self.lost_in_transport),
        }
        values |= {
            f"dropped: {reason}": str(count) for reason, count in sorted(tally.drops.items())
        }
        if self._last is not None:
            estimate = self._last.estimate
            values |= {
                "tracking state": estimate.tracking_state.value,
                "scale state": estimate.scale_state.value,
                "scale sigma": f"{estimate.scale_sigma:.3g}",
                "pose source": estimate.pose_source.value,
                "segment": str(estimate.segment),
            }
        status = make(
            "diagnostic_msgs/msg/DiagnosticStatus",
            level=level,
            name=f"{name}: visual odometry",
            message=text,
            hardware_id=facts.get("model", ""),
            values=[
                make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
                for key, value in (values | facts).items()
            ],
        )
        return make(
            "diagnostic_msgs/msg/DiagnosticArray",
            header=make("std_msgs/msg/Header", stamp=stamp),
            status=[status],
        )

    def _verdict(self, lifecycle: str, silence_timeout: float) -> tuple[bytes, str]:
        if lifecycle != "active":
            return DiagnosticStatus.OK, f"{lifecycle}, nothing is estimated"
        silence = self.input.silence()
        if silence > silence_timeout:
            return DiagnosticStatus.WARN, "no image yet" if silence == float(
                "inf"
            ) else f"no image for {silence:.1f} s"
        if self._last is None:
            return DiagnosticStatus.WARN, "no estimate yet"
        estimate = self._last.estimate
        if estimate.tracking_state is TrackingState.LOST:
            return (
                DiagnosticStatus.ERROR,
                "tracking lost: poses are not to be used; move back to a place seen "
                "before, or call ~/reset",
            )
        if estimate.tracking_state is TrackingState.DEGRADED:
            return DiagnosticStatus.WARN, "tracking degraded"
        metric = (
            ""
            if estimate.scale_state is ScaleState.METRIC
            else f", scale {estimate.scale_state.value}"
        )
        return DiagnosticStatus.OK, f"{estimate.tracking_state.value}{metric}"
