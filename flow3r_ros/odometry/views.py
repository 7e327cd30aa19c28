"""One frame as the odometry looks at it: rectified, at the sizes that its readers want."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flow3r_ros.geometry.correspondence import Picture
from flow3r_ros.types import Camera, Float32, Frame, UInt8


@dataclass(frozen=True)
class View:
    """A rectified frame.

    `frame` the full image and its pinhole; `tracking` gray uint8 `[H, W]` with the pinhole `lens`,
    what corners are followed in; `rgb` and `gray` uint8 on the depth grid with the pinhole
    `camera`.
    """

    frame: Frame
    tracking: UInt8
    lens: Camera
    rgb: UInt8
    gray: UInt8
    camera: Camera

    @property
    def id(self) -> int:
        """The frame's id."""
        return self.frame.id

    @property
    def ratio(self) -> Float32:
        """Size of the tracking image over that of the depth grid, `[2]` (x, y)."""
        (high, wide), (rows, columns) = self.tracking.shape, self.gray.shape
        return np.array([wide / columns, high / rows], dtype=np.float32)

    @cached_property
    def picture(self) -> Picture:
        """`gray`, ready to be matched."""
        return Picture.of(self.gray)
