"""The network's factored flow between two keyframes as `flow3r_ros/FactoredFlow`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flow3r_ros.geometry.correspondence import agreement
from flow3r_ros.types import Float32, Frame
from flow3r_ros.wire.images import Make
from flow3r_ros.wire.transforms import NANOSECONDS, header_of


@dataclass(frozen=True)
class KeyframeFlow:
    """`forward` and `backward` float32 `[h, w, 2]`, pixels of the network's grid, between the
    images `source` (the older keyframe) and `target` (the newer one)."""

    source: Frame
    target: Frame
    forward: Float32
    backward: Float32


def factored_flow(make: Make, flow: KeyframeFlow, camera_frame: str) -> Any:
    """The message; a point is covisible as far as the flow back leads home."""
    height, width = flow.forward.shape[:2]
    ns = flow.target.stamp_ns
    return make(
        "flow3r_ros/msg/FactoredFlow",
        header=header_of(make, flow.source.stamp_ns, camera_frame or flow.source.source_frame),
        target_stamp=make(
            "builtin_interfaces/msg/Time", sec=ns // NANOSECONDS, nanosec=ns % NANOSECONDS
        ),
        height=height,
        width=width,
        flow=flow.forward.reshape(-1),
        covisibility=agreement(flow.forward, flow.backward).reshape(-1),
    )
