"""The depth of a frame as it is published: completed along the image's surfaces, steady from frame
to frame, as sure as it proved to be.

What the front end hands over is the keyframe's depth seen from here: unknown where the keyframe did
not look, and another one at every join. Owns the depth that was published last.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.camera import rays
from flow3r_ros.geometry.completion import fill_depth
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Camera, Float32, Float64

SHARED_SIGMA = 0.08
"""relative sigma of errors that a depth map has as a whole (bent or tilted surfaces), which no
pixel's own sigma knows of: maximum likelihood of "within 10 %" on six held-out factory clips
through the engine"""
GAIN = 0.12
"""share of a difference to the depth published before that a frame takes on at least: a join that
moves depth by 8 % moves it by less than 1 % a frame, and is over in half a second of a 30 Hz
camera. Depth that is surer than what was published takes on more"""
GATE = 0.25
"""difference of log depth beyond which nothing is averaged: another surface"""
_NO_MAP = np.empty((0, 0), dtype=np.float32)


@dataclass(frozen=True)
class _Published:
    """Log depth (NaN unknown) of the frame before and its variance `[h, w, 2]`, and its pose."""

    maps: Float32
    pose: Float64
    camera: Camera


class FrameDepth:
    """Depth of frames in their order; see the module."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Nothing published yet."""
        self._before: _Published | None = None

    def settle(self, view: View, pose: Float64 | None, depth: DepthMap, moving: Bool) -> DepthMap:
        """The depth to publish of a frame.

        Args:
            pose: camera-to-world `[4, 4]`; None where it is not known.
            depth: what is known of the frame, in units of the pose.
            moving: bool `[h, w]`; such pixels neither fill others nor follow their past.
        """
        inverse, sigma = fill_depth(depth.inverse, depth.sigma, view.gray, moving)
        log, relative = -np.log(inverse), sigma / inverse
        variance = relative * relative + np.float32(SHARED_SIGMA**2)
        if pose is None:
            self._before = None
        else:
            log = self._steadied(log, variance, pose, view.camera, moving)
            self._before = _Published(cv2.merge([log, variance]), pose, view.camera)
        inverse = np.exp(-log)
        known = np.isfinite(inverse)
        sigma = np.where(known, inverse * np.sqrt(variance), np.float32(np.inf))
        return DepthMap(inverse, sigma)

    def _steadied(
        self, log: Float32, variance: Float32, pose: Float64, camera: Camera, moving: Bool
    ) -> Float32:
        """Log depth `[h, w]` drawn towards what was published of the same points before, looked at
        on every second pixel."""
        before = self._before
        if before is None or before.camera != camera:
            return log
        z = np.exp(log[::2, ::2])
        T = (invert(before.pose) @ pose).astype(np.float32)
        ray = rays(camera)[::2, ::2]
        x, y = ray[..., 0] * z, ray[..., 1] * z
        there = [T[i, 0] * x + T[i, 1] * y + T[i, 2] * z + T[i, 3] for i in range(3)]
        with np.errstate(invalid="ignore", divide="ignore"):
            u = there[0] / there[2] * np.float32(camera.fx) + np.float32(camera.cx)
            v = there[1] / there[2] * np.float32(camera.fy) + np.float32(camera.cy)
            seen = cv2.remap(before.maps, u, v, cv2.INTER_LINEAR, borderValue=(np.nan,) * 4)
            gap = seen[..., 0] - np.log(there[2])
            same = (np.abs(gap) < GATE) & ~moving[::2, ::2]
            surer = np.maximum(1 - variance[::2, ::2] / seen[..., 1], 0)
        kept = np.float32(1 - GAIN) * (1 - surer)
        gap = np.where(same, kept * gap, np.float32(0))
        return log + cv2.resize(gap, (log.shape[1], log.shape[0]), interpolation=cv2.INTER_LINEAR)
