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
from flow3r_ros.geometry.completion import between, fill_every_second
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Camera, Float32, Float64

SHARED_SIGMA = 0.05
"""relative sigma of errors that a depth map has as a whole (bent or tilted surfaces), which no
pixel's own sigma knows of; with `DECAY` chosen on six held-out factory clips through the engine, at
the least mean calibration error"""
GAIN = 0.12
"""share of a difference to the depth published before that a frame takes on at least: a join that
moves depth by 8 % moves it by less than 1 % a frame, and is over in half a second of a 30 Hz
camera. Depth that is surer than what was published takes on more"""
GATE = 0.25
"""difference of log depth beyond which nothing is averaged: another surface"""
DECAY = 0.9
"""share of a doubt that is left a frame later: keyframes that contradicted each other are believed
again after a second"""


@dataclass(frozen=True)
class _Published:
    """Log depth (NaN unknown), its variance and the doubt that comes on top, `[h, w, 3]`, of every
    second pixel of the frame before, its pose and the pinhole of these pixels."""

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
            depth: what is known of every second pixel of the frame, in units of the pose.
            moving: bool `[h, w]`; such pixels neither fill others nor follow their past.

        Returns the depth of every pixel of the depth grid.
        """
        completed = fill_every_second(depth.inverse, depth.sigma, view.gray[::2, ::2], moving)
        log, relative = completed.log, completed.relative
        variance = relative * relative + np.float32(SHARED_SIGMA**2)
        if pose is None:
            self._before = None
        else:
            camera = view.sparse_camera
            shift, doubt = self._change(log, variance, pose, camera, moving)
            log = log + shift
            self._before = _Published(np.dstack([log, variance, doubt]), pose, camera)
            variance = variance + doubt
        inverse = np.exp(-completed.finer(log, view.gray))
        known = np.isfinite(inverse)
        relative = between(np.sqrt(variance), view.gray.shape)
        return DepthMap(inverse, np.where(known, inverse * relative, np.float32(np.inf)))

    def _change(
        self, log: Float32, variance: Float32, pose: Float64, camera: Camera, moving: Bool
    ) -> tuple[Float32, Float32]:
        """How far log depth `[h, w]` is drawn towards what was published of the same points before,
        and the variance that their contradiction adds."""
        before = self._before
        if before is None or before.maps.shape[:2] != log.shape:
            return np.zeros_like(log), np.zeros_like(log)
        z = np.exp(log)
        T = (invert(before.pose) @ pose).astype(np.float32)
        ray = rays(camera)
        x, y = ray[..., 0] * z, ray[..., 1] * z
        there = [T[i, 0] * x + T[i, 1] * y + T[i, 2] * z + T[i, 3] for i in range(3)]
        zero, nan = np.float32(0), float("nan")
        with np.errstate(invalid="ignore", divide="ignore"):
            u = there[0] / there[2] * np.float32(camera.fx) + np.float32(camera.cx)
            v = there[1] / there[2] * np.float32(camera.fy) + np.float32(camera.cy)
            seen = cv2.remap(before.maps, u, v, cv2.INTER_LINEAR, borderValue=(nan, nan, nan, nan))
            gap = seen[..., 0] - np.log(there[2])
            still = np.isfinite(gap) & ~moving
            kept = np.clip(variance / seen[..., 1], 0, 1)
            clash = np.minimum(gap * gap, np.float32(GATE**2)) * kept
            doubt = np.where(still, np.fmax(clash, np.float32(DECAY) * seen[..., 2]), zero)
            same = still & (np.abs(gap) < GATE)
        return np.where(same, np.float32(1 - GAIN) * kept * gap, zero), doubt
