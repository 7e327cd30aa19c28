"""What is followed from frame to frame: the corners of a keyframe, and what they say of a frame."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera_pose import DepthPoints, PoseFit
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.odometry.depth import carry
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64

HELD_BACK = 4
"""one corner in so many judges the pose instead of finding it"""


@dataclass(frozen=True)
class Reference:
    """What the front end knows of the latest keyframe.

    `pose` `[4, 4]` camera-to-world, odometry units; `depth` and `moving` on its depth grid; its
    corners: `ids` int64 `[N]` of the map's points, `pixels` float32 `[N, 2]` where they are in its
    tracking image, `points` their rays and inverse depths in its optical frame.
    """

    view: View
    pose: Float64
    depth: DepthMap
    moving: Bool
    ids: NDArray[np.int64]
    pixels: Float32
    points: DepthPoints

    @property
    def median_depth(self) -> float:
        """Of the corners, odometry units; 1 without any."""
        inverse = self.points.inverse
        return 1.0 / max(float(np.median(inverse)), 1e-9) if len(inverse) else 1.0

    def seen_from(self, view: View, T_ref_cam: Float64) -> tuple[DepthMap, Float32]:
        """The keyframe's depth seen from every second pixel of a frame at `T_ref_cam` `[4, 4]`, and
        where on its depth grid these come from, float32 `[h, w, 2]`."""
        depth, came_from = carry(self.depth.every_second(), T_ref_cam, view.sparse_camera)
        if view.ignored is not None:
            depth = depth.where(~view.ignored[::2, ::2])
        return depth, 2 * came_from

    @property
    def held_back(self) -> Bool:
        """Corners that judge, bool `[N]`."""
        return np.asarray(self.ids % HELD_BACK == 0)


@dataclass(frozen=True)
class Tracked:
    """What the corners say about one frame.

    `ids` int64 `[N]` of the keyframe's corners; `T_ref_cam` `[4, 4]` pose of the frame in the
    keyframe; `fit` of the corners that gave it (None: too few were found); `agreed` bool `[N]`
    corners seen where they belong, `pixels` float32 `[N, 2]` where corners were found or belong;
    `judged` float64 `[M]` distances in sigmas of the held-back corners that were found; `asked` the
    number of held-back corners that the pose puts into the image; `expected` the number of all such
    corners; `shared` square pixels that residuals of neighbouring corners have in common, NaN where
    too few have neighbours.
    """

    ids: NDArray[np.int64]
    T_ref_cam: Float64
    fit: PoseFit | None
    agreed: Bool
    pixels: Float32
    judged: Float64
    asked: int
    expected: int
    shared: float = float("nan")
