"""`/diagnostics` of node and replay: one builder, the same keys in the same order.

What only a running process knows (rates, latency, age, memory) stands in `ProcessFigures`, whose
defaults are what a replay says: a fixed value that depends on no clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flow3r_ros.types import Estimate, ScaleState, TrackingState
from flow3r_ros.wire.images import Make
from flow3r_ros.wire.outputs import RunStatus
from flow3r_ros.wire.transforms import header_of

TYPE = "diagnostic_msgs/msg/DiagnosticArray"
PERIOD_NS = 1_000_000_000
"""time between two messages: of the clock in the node, of the stamps in a replay"""
_OK, _WARN, _ERROR = 0, 1, 2
FOR_A_FILTER = {
    ScaleState.RELATIVE: ", scale relative: no metres, a filter may fuse rates of turn alone",
    ScaleState.ANCHORED: ", scale anchored: metres as far as scale.factor is right",
    ScaleState.METRIC: "",
}
"""what one unit is worth to who reads the odometry, behind the tracking state"""


@dataclass(frozen=True)
class ProcessFigures:
    """What a running process knows beside the estimate; the defaults are those of a replay.

    `waiting` says why nothing comes out (`no image for 3.0 s`), empty while something does;
    `trouble` what is wrong although something does (`82 % of the images are not estimated`), and
    `severe` whether that is an error.
    """

    lifecycle: str = "active"
    waiting: str = ""
    trouble: str = ""
    severe: bool = False
    rate_in_hz: float = 0.0
    rate_out_hz: float = 0.0
    latency_p50_ms: float = 0.0
    latency_p95_ms: float = 0.0
    beside_engine_p50_ms: float = 0.0
    age_ms: float = 0.0
    drop_share: float = 0.0
    stamp_offset_s: float = 0.0
    lost_in_transport: int = 0
    missing_by_stamp: int = 0
    infos_ignored: int = 0
    device: str = ""
    memory_mb: float = 0.0


def diagnostics(
    make: Make,
    stamp_ns: int,
    node: str,
    estimate: Estimate | None,
    status: RunStatus,
    process: ProcessFigures,
) -> Any:
    """`diagnostic_msgs/DiagnosticArray` of `node` (its name), stamped `stamp_ns`, after its last
    `estimate` (None before the first: the same keys with empty values)."""
    values = _of_process(process, status) | _of_estimate(estimate) | _of_model(process, status)
    level, text = _verdict(process, estimate)
    entry = make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=level,
        name=f"{node.lstrip('/')}: visual odometry",
        message=text,
        hardware_id=status.model,
        values=[
            make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
            for key, value in values.items()
        ],
    )
    return make(TYPE, header=header_of(make, stamp_ns, ""), status=[entry])


def _of_process(process: ProcessFigures, status: RunStatus) -> dict[str, str]:
    counted = {f"dropped: {reason}": str(n) for reason, n in sorted(status.drops.items())}
    return {
        "lifecycle state": process.lifecycle,
        "rate in [Hz]": f"{process.rate_in_hz:.1f}",
        "rate out [Hz]": f"{process.rate_out_hz:.1f}",
        "latency p50 [ms]": f"{process.latency_p50_ms:.1f}",
        "latency p95 [ms]": f"{process.latency_p95_ms:.1f}",
        "beside the engine p50 [ms]": f"{process.beside_engine_p50_ms:.2f}",
        "result age [ms]": f"{process.age_ms:.1f}",
        "stamps behind the clock [s]": f"{process.stamp_offset_s:.3f}",
        "frames received": str(status.received),
        "frames estimated": str(status.estimated),
        "frames dropped": str(sum(status.drops.values())),
        **counted,
        "drop share": f"{process.drop_share:.2f}",
        "images lost before the node": str(process.lost_in_transport),
        "images missing by their stamps": str(process.missing_by_stamp),
        "CameraInfo ignored": str(process.infos_ignored),
        "seams refused": str(status.seams_refused),
    }


def _of_estimate(estimate: Estimate | None) -> dict[str, str]:
    if estimate is None:
        keys = ("tracking state", "reason", "scale state", "scale sigma", "pose source", "segment")
        return dict.fromkeys(keys, "")
    return {
        "tracking state": estimate.tracking_state.value,
        "reason": estimate.reason,
        "scale state": estimate.scale_state.value,
        "scale sigma": f"{estimate.scale_sigma:.3g}",
        "pose source": estimate.pose_source.value,
        "segment": str(estimate.segment),
    }


def _of_model(process: ProcessFigures, status: RunStatus) -> dict[str, str]:
    return {
        "camera": status.camera,
        "model": status.model,
        "device": process.device,
        "licence of the weights": status.weights_license,
        "weights sha256": status.weights_sha256,
        "GPU memory [MB]": f"{process.memory_mb:.0f}",
    }


def _verdict(process: ProcessFigures, estimate: Estimate | None) -> tuple[int, str]:
    """Level and one line of text."""
    if process.lifecycle != "active":
        return _OK, f"{process.lifecycle}, nothing is estimated"
    if process.waiting:
        return _WARN, process.waiting
    if estimate is None:
        return (_ERROR if process.severe else _WARN), process.trouble or "no estimate yet"
    why = f" ({estimate.reason})" if estimate.reason else ""
    if not estimate.tracking_state.has_pose:
        text = f"tracking {estimate.tracking_state.value}{why}: poses are not to be used"
        return _ERROR, f"{text}; move back to a place seen before, or call ~/reset"
    if process.trouble:
        return (_ERROR if process.severe else _WARN), process.trouble
    if estimate.tracking_state is TrackingState.DEGRADED:
        return _WARN, f"tracking degraded{why}"
    return _OK, estimate.tracking_state.value + FOR_A_FILTER[estimate.scale_state]
