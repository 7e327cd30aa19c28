"""`/diagnostics` of a replay: what the node would say, without what only a clock knows (rates,
latency, age)."""

from __future__ import annotations

from typing import Any

from flow3r_ros.types import Estimate, TrackingState
from flow3r_ros.wire.images import Make
from flow3r_ros.wire.outputs import RunStatus
from flow3r_ros.wire.transforms import header_of

TYPE = "diagnostic_msgs/msg/DiagnosticArray"
PERIOD_NS = 1_000_000_000
_OK, _WARN, _ERROR = 0, 1, 2
_LEVELS = {TrackingState.DEGRADED: _WARN, TrackingState.LOST: _ERROR}


def diagnostics(make: Make, estimate: Estimate, status: RunStatus, name: str) -> Any:
    """`diagnostic_msgs/DiagnosticArray` of node `name` after one estimate."""
    values = {
        "frames received": str(status.received),
        "frames estimated": str(status.estimated),
        "frames dropped": str(sum(status.drops.values())),
        **{f"dropped: {reason}": str(count) for reason, count in sorted(status.drops.items())},
        "seams refused": str(status.seams_refused),
        "tracking state": estimate.tracking_state.value,
        "scale state": estimate.scale_state.value,
        "scale sigma": f"{estimate.scale_sigma:.3g}",
        "pose source": estimate.pose_source.value,
        "camera": status.camera,
        "segment": str(estimate.segment),
        "model": status.model,
        "licence of the weights": status.weights_license,
    }
    entry = make(
        "diagnostic_msgs/msg/DiagnosticStatus",
        level=_LEVELS.get(estimate.tracking_state, _OK),
        name=f"{name.lstrip('/')}: visual odometry",
        message=f"{estimate.tracking_state.value}, scale {estimate.scale_state.value}",
        hardware_id=status.model,
        values=[
            make("diagnostic_msgs/msg/KeyValue", key=key, value=value)
            for key, value in values.items()
        ],
    )
    return make(TYPE, header=header_of(make, estimate.stamp_ns, ""), status=[entry])
