"""A slanted textured plane seen by a swaying camera, and a predictor that knows it exactly and
costs nothing.

With it in the network's place, only our own code is on the clock of a benchmark, and whatever error
a protocol shows is its own.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import cv2
import numpy as np

from flow3r_ros.geometry.camera import rays, scaled
from flow3r_ros.geometry.lie import invert
from flow3r_ros.types import Camera, Float32, Float64, Frame, Prediction, UInt8, Window

CAMERA = Camera(640, 480, 520.0, 520.0, 319.5, 239.5)
NORMAL, DISTANCE = np.array([0.25, -0.35, 0.9]) / np.linalg.norm([0.25, -0.35, 0.9]), 2.0


class PlaneScene:
    """The plane through a pinhole camera; poses are camera-to-world, the first is the identity."""

    def __init__(self, camera: Camera = CAMERA) -> None:
        self.camera = camera
        self._texture = _texture(2 * camera.width, 2 * camera.height)

    def pose(self, index: float) -> Float64:
        """A gentle hand-held sway, `[4, 4]`."""
        phase = 2 * np.pi * index / 90
        rotation, _ = cv2.Rodrigues(
            np.array([0.03 * np.sin(phase), 0.05 * np.sin(0.7 * phase), 0.02 * np.sin(1.3 * phase)])
        )
        pose = np.eye(4)
        pose[:3, :3] = rotation
        pose[:3, 3] = 0.25 * np.sin(phase), 0.1 * np.sin(0.6 * phase), 0.15 * (1 - np.cos(phase))
        return pose

    def picture(self, pose: Float64) -> UInt8:
        """RGB `[H, W, 3]`: the texture of the first view through the homography of the plane."""
        to_camera = invert(pose)
        first_to_now = self.camera.matrix @ (
            to_camera[:3, :3] + np.outer(to_camera[:3, 3], NORMAL) / DISTANCE
        )
        size = (self.camera.width, self.camera.height)
        shift = np.array([[1.0, 0.0, -size[0] / 2], [0.0, 1.0, -size[1] / 2], [0.0, 0.0, 1.0]])
        homography = first_to_now @ np.linalg.inv(self.camera.matrix) @ shift
        return np.asarray(cv2.warpPerspective(self._texture, homography, size), np.uint8)

    def points(self, pose: Float64, camera: Camera | None = None) -> Float32:
        """Exact points `[h, w, 3]` in the optical frame, on the grid of `camera`."""
        grid = rays(camera or self.camera).astype(np.float64)
        directions = np.concatenate([grid, np.ones_like(grid[..., :1])], axis=-1)
        depth = (DISTANCE - NORMAL @ pose[:3, 3]) / (directions @ (pose[:3, :3].T @ NORMAL))
        return np.asarray(directions * depth[..., None], np.float32)


class PlanePredictor:
    """A Predictor that knows the plane.

    Args:
        scene: the plane and its camera.
        pose_of: true pose of a frame; by default that of its id.
        grid: (width, height) of what it predicts.
    """

    name = "plane"
    uses_evidence = False
    frames_per_window = 4

    def __init__(
        self,
        scene: PlaneScene | None = None,
        pose_of: Callable[[Frame], Float64] | None = None,
        grid: tuple[int, int] = (168, 126),
    ) -> None:
        self._scene = scene or PlaneScene()
        self._pose_of = pose_of or (lambda frame: self._scene.pose(frame.id))
        self._grid = grid

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """The grid."""
        return self._grid

    def prepare(self, frame: Frame) -> None:
        """Nothing to encode."""

    def predict(self, window: Window) -> Prediction:
        """Exact points and poses of the wanted frames."""
        small = scaled(self._scene.camera, *self._grid)
        frames = {frame.id: frame for frame in window.frames}
        poses = [self._pose_of(frames[frame_id]) for frame_id in window.wanted]
        points = np.stack([self._scene.points(pose, small) for pose in poses])
        return Prediction(
            window.wanted, points, np.full(points.shape[:3], 0.9, np.float32), np.stack(poses)
        )

    def reset(self) -> None:
        """Nothing is remembered."""


def plane_picture(index: int) -> UInt8:
    """RGB `[480, 640, 3]` of the plane at one moment of the sway."""
    scene = PlaneScene()
    return scene.picture(scene.pose(index))


@cache
def _texture(width: int, height: int) -> UInt8:
    """Random structure of several sizes."""
    rng = np.random.default_rng(0)
    layers = np.zeros((height, width, 3), np.float32)
    for share in (64, 21, 7, 2.7):
        noise = rng.normal(0, 1, (round(height / share), round(width / share), 3)).astype(
            np.float32
        )
        layers += cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)
    low, high = np.percentile(layers, [1, 99])
    return np.asarray(np.clip(255 * (layers - low) / (high - low), 0, 255), np.uint8)
