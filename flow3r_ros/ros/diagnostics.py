"""The health of a running node, told on `/diagnostics` once a second, also while no image comes:
rates, latency, age, drops, silence. The message is built by `wire.diagnostics`, as a replay's is.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.config import NodeSettings
from flow3r_ros.ros.gaps import Gaps
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.messages import make
from flow3r_ros.ros.worker import Outcome, Tally
from flow3r_ros.wire.diagnostics import ProcessFigures, diagnostics
from flow3r_ros.wire.outputs import RunStatus

SPAN_S = 5.0
"""rates are counted and percentiles taken over this time"""
NOT_OURS = ("idle", "waiting_for_camera_info", "engine_error")
"""drops that do not mean that the engine is too slow, or are told otherwise"""
MISSING_SHARE = 0.1
"""share of images missing by their stamps from which the diagnostics warn"""
NO_CLOCK = "use_sim_time is set and no /clock comes"
FAR_NS = 5_000_000_000
"""an image that arrives with a stamp further than this from the node's clock runs on another clock;
its results are as old as the time since it came"""
AHEAD_NS = 100_000_000
"""a stamp further ahead than this makes tf wait, or refuse"""


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
        self.gaps = Gaps()
        self.lost_in_transport = 0
        self.offset_ns = 0
        """how far the stamp of the latest image lay behind the node's clock at its reception"""
        self._latencies: deque[tuple[float, float, float]] = deque(maxlen=500)
        self._counts: deque[tuple[float, int, int]] = deque(maxlen=int(SPAN_S) + 1)
        self._last: Outcome | None = None
        self._age_ms = self._since_reception_ms = float("nan")

    def received(self, stamp_ns: int, now_ns: int) -> None:
        """An image came; `now_ns` is the node's clock, 0 while that stands."""
        self.input.tick()
        self.gaps.note(stamp_ns)
        self.offset_ns = now_ns - stamp_ns if now_ns > 0 and stamp_ns > 0 else 0

    def note(self, outcome: Outcome, age_ms: float) -> None:
        """The messages of an estimate are out, `age_ms` after its stamp."""
        self.output.tick()
        now = time.monotonic()
        self._since_reception_ms = (now - outcome.received_at) * 1e3
        self._latencies.append(
            (now, outcome.latency_ms, self._since_reception_ms - outcome.engine_ms)
        )
        self._last, self._age_ms = outcome, age_ms

    def message(
        self,
        stamp_ns: int,
        node: str,
        lifecycle: str,
        settings: NodeSettings,
        loaded: Loaded | None,
        tally: Tally,
        infos_ignored: int,
        camera: str,
    ) -> Any:
        """The `diagnostic_msgs/DiagnosticArray` of now, judged by the limits of `settings`;
        `camera` says which one is used."""
        (p50, beside), (p95, _) = np.percentile(self._recent(), (50, 95), axis=0)
        drop_share = self._drop_share(tally)
        trouble, severe = self._trouble(drop_share, settings)
        figures = ProcessFigures(
            lifecycle=lifecycle,
            waiting=NO_CLOCK if stamp_ns == 0 else self._waiting(settings.silence_timeout),
            trouble=trouble,
            severe=severe,
            rate_in_hz=self.input.per_second(),
            rate_out_hz=self.output.per_second(),
            latency_p50_ms=float(p50),
            latency_p95_ms=float(p95),
            beside_engine_p50_ms=float(beside),
            age_ms=self._age_ms,
            drop_share=drop_share,
            stamp_offset_s=self.offset_ns * 1e-9,
            lost_in_transport=self.lost_in_transport,
            missing_by_stamp=self.gaps.missing,
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

    def _drop_share(self, tally: Tally) -> float:
        """Share of the images of the last seconds that were wanted and not estimated."""
        dropped = sum(tally.drops.values()) - sum(tally.drops[reason] for reason in NOT_OURS)
        wanted = dropped + tally.estimated
        if self._counts and wanted < self._counts[-1][1]:  # a reset
            self._counts.clear()
        self._counts.append((time.monotonic(), wanted, dropped))
        _, wanted_before, dropped_before = self._counts[0]
        came = wanted - wanted_before
        return (dropped - dropped_before) / came if came else 0.0

    def _trouble(self, drop_share: float, settings: NodeSettings) -> tuple[str, bool]:
        """What is wrong although estimates come, the worst first, and whether it is an error."""
        age_s = self._age_s()
        late = f"results are {age_s:.1f} s old"
        few = f"{100 * drop_share:.0f} % of the images are not estimated"
        cure = "tracking.depth_width, model.threads or a slower camera help (docs/robot.md)"
        if age_s >= settings.age_error:
            return f"{late}; {cure}", True
        if drop_share >= settings.drop_share_error:
            return f"{few}; {cure}", True
        if age_s >= settings.age_warn:
            return f"{late}; {cure}", False
        if drop_share >= settings.drop_share_warn:
            return f"{few}; {cure}", False
        if self.gaps.share >= MISSING_SHARE:
            missing = f"{100 * self.gaps.share:.0f} % of the images do not reach the node"
            return f"{missing} by their stamps; the log says what to do", False
        return "", False

    def _age_s(self) -> float:
        """Age of the latest result when it was published, seconds; NaN before the first."""
        other_clock = abs(self.offset_ns) > FAR_NS
        return (self._since_reception_ms if other_clock else self._age_ms) * 1e-3
