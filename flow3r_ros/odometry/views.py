"""Frames the odometry remembers, keyed by frame id: the keyframes and the previous frame, never
more.

A view is one image with all that is known about it. The buffer answers one question: which frames
go through the network together.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import cv2
import numpy as np

from flow3r_ros.geometry.correspondence import Picture
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.types import Bool, Camera, Float32, Float64, Frame, Seam, UInt8


@dataclass
class View:
    """One frame inside the odometry.

    `frame` holds the rectified image and its pinhole; `rgb` uint8 `[h, w, 3]` and `gray` uint8 `[h,
    w]` the same image on the depth grid with the pinhole `camera`; `pose` float64 `[4, 4]`
    camera-to-world in odometry units; `inverse_depth` and `sigma` float32 `[h, w]` in 1 / odometry
    unit (NaN and inf where unknown), `base` the part of it that was not triangulated here; `moving`
    bool `[h, w]`; `expected` the pose that geometry alone gave before the network answered;
    `predicted_depth` float32 on the prediction's grid, odometry units, where the network's own
    geometry was accepted unchanged.
    """

    frame: Frame
    rgb: UInt8
    gray: UInt8
    camera: Camera
    pose: Float64 = field(default_factory=lambda: np.eye(4))
    inverse_depth: Float32 = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    sigma: Float32 = field(default_factory=lambda: np.empty((0, 0), dtype=np.float32))
    moving: Bool = field(default_factory=lambda: np.empty((0, 0), dtype=np.bool_))
    base: DepthMap | None = None
    predicted_depth: Float32 | None = None
    seam: Seam | None = None
    expected: Float64 = field(default_factory=lambda: np.eye(4))

    @property
    def id(self) -> int:
        """The frame's id."""
        return self.frame.id

    @cached_property
    def picture(self) -> Picture:
        """`gray`, ready to be matched."""
        return Picture.of(self.gray)

    def forget_depth(self) -> None:
        """Set depth to unknown everywhere and nothing moving."""
        shape = self.gray.shape
        self.inverse_depth = np.full(shape, np.nan, dtype=np.float32)
        self.sigma = np.full(shape, np.inf, dtype=np.float32)
        self.moving = np.zeros(shape, dtype=np.bool_)

    def depth_on_grid(self, width: int, height: int) -> Float32:
        """Depth on a prediction's grid, float32 `[height, width]` in odometry units, NaN where
        unknown, uncertain or moving."""
        if self.predicted_depth is not None and self.predicted_depth.shape == (height, width):
            return self.predicted_depth
        with np.errstate(divide="ignore", invalid="ignore"):
            sure = (self.sigma < 0.5 * self.inverse_depth) & ~self.moving
            depth = np.where(sure, 1.0 / self.inverse_depth, np.nan).astype(np.float32)
        return np.asarray(
            cv2.resize(depth, (width, height), interpolation=cv2.INTER_NEAREST), dtype=np.float32
        )


class ViewBuffer:
    """The last `capacity` keyframes (oldest first) and the previous frame."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.keyframes: list[View] = []
        self.previous: View | None = None

    def clear(self) -> None:
        """Forget everything."""
        self.keyframes.clear()
        self.previous = None

    def add_keyframe(self, view: View) -> View | None:
        """Remember a keyframe; returns the one that had to go."""
        self.keyframes.append(view)
        return self.keyframes.pop(0) if len(self.keyframes) > self.capacity else None

    def companions(self, count: int) -> list[View]:
        """The `count` views that go through the network beside new ones, oldest first: the latest
        keyframes."""
        return self.keyframes[-count:] if count > 0 else []
