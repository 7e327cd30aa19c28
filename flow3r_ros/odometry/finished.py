"""What the odometry tells others of a keyframe once it is taken in: the door to `slam/`."""

from __future__ import annotations

from dataclasses import dataclass

from flow3r_ros.odometry.corners import Reference
from flow3r_ros.odometry.relocalisation import Features
from flow3r_ros.types import Float64


@dataclass(frozen=True)
class Finished:
    """A keyframe as the front end goes on with it, in odometry units.

    `reference` its view, pose in `odom`, depth and corners (with the ids of their points);
    `features` SIFT features of its tracking image; `adjusted` the poses `[4, 4]` of the keyframes
    that were adjusted with it, by frame id, which replace what was told of them before; `segment`
    the piece of the trajectory it belongs to. Nothing in it changes afterwards.
    """

    reference: Reference
    features: Features
    adjusted: dict[int, Float64]
    segment: int
