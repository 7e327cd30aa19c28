"""Who wins the pose of a frame: rest, the network, geometry, or the prediction.

The gate leaves the network's pose alone when the correspondences cannot tell it from the refined
pose (likelihood ratio of six degrees of freedom): with good weights, geometry never makes a
trajectory worse, and where there is little to match it keeps out. Otherwise the refined pose wins.
What loses still counts: its distance to the winner is part of the covariance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.align import Known, to_odometry
from flow3r_ros.odometry.assist import Track
from flow3r_ros.odometry.uncertainty import bridged, pose_covariance, spread
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float64, PoseSource, Prediction, Seam

GATE = 12.59
"""the network's pose stays when its likelihood ratio to the refined pose is below it: 95 % of
chi-square with 6 degrees of freedom"""
TOLD_GATE = 0.0
"""the same for a network that was told the prior pose: repeating it is no second opinion, so it
must explain the images better (KITTI clip from five start frames: ATE .09 to .40 m instead of .33
to 3.4 m; three parts of 7-Scenes: no clear difference)"""


@dataclass(frozen=True)
class Choice:
    """`pose` `[4, 4]` camera-to-world, its `source` and `covariance` `[6, 6]`."""

    pose: Float64
    source: PoseSource
    covariance: Float64

    @property
    def trusted(self) -> bool:
        """Whether anything measured the pose."""
        return self.source is not PoseSource.PREDICTED


def choose_pose(
    view: View,
    track: Track | None,
    prediction: Prediction | None,
    seam: Seam | None,
    known: Mapping[int, Known],
    predicted: Float64,
    before: Float64,
    median_depth: float,
    gate: float = GATE,
) -> Choice:
    """Pose of a new frame.

    Args:
        track: what correspondences say (None: the assist is off).
        prediction, seam, known: the window's geometry, its seam and the shared frames (None, or a
            refused seam: no network pose).
        predicted: pose from the last velocity; before: covariance of the frame before.
        median_depth: of the scene, odometry units.
        gate: `GATE` or `TOLD_GATE`.
    """
    if track is not None and track.still is not None:
        return Choice(
            track.still.pose,
            PoseSource.STATIONARY,
            pose_covariance(np.zeros((6, 6)), median_depth),
        )
    network = None
    if prediction is not None and seam is not None and seam.accepted:
        network = to_odometry(prediction.poses[prediction.frame_ids.index(view.id)], seam)
    refined = track.refined if track is not None else None
    if track is not None and refined is not None:
        others = [] if network is None else [network]
        if network is not None and track.likelihood_ratio(network, view) <= gate:
            return Choice(
                network,
                PoseSource.NETWORK,
                pose_covariance(spread(network, [refined.T_world_cam]), median_depth),
            )
        doubt = 0.01 * spread(refined.T_world_cam, others)
        return Choice(
            track.pose,
            track.source,
            pose_covariance(doubt + refined.covariance, median_depth),
        )
    if network is not None and prediction is not None and seam is not None:
        return Choice(
            network,
            PoseSource.NETWORK,
            _network_covariance(network, view, prediction, seam, known, median_depth),
        )
    return Choice(predicted, PoseSource.PREDICTED, bridged(before, median_depth))


def _network_covariance(
    pose: Float64,
    view: View,
    prediction: Prediction,
    seam: Seam,
    known: Mapping[int, Known],
    median_depth: float,
) -> Float64:
    """Spread of the poses that each shared frame alone would give, plus the seam's residual."""
    index = prediction.frame_ids.index(view.id)
    alternatives = []
    for other, id_ in enumerate(prediction.frame_ids):
        if id_ in known:
            step = invert(prediction.poses[other]) @ prediction.poses[index]
            step[:3, 3] *= seam.scale
            alternatives.append(known[id_].pose @ step)
    noise = np.diag(
        [(0.1 * seam.residual * median_depth) ** 2] * 3 + [(0.02 * seam.residual) ** 2] * 3
    )
    return pose_covariance(spread(pose, alternatives) + noise, median_depth)
