"""Shadows of the lamp: which part of what a camera sees is hidden from it, softened as by a lamp
that is not a point."""

from __future__ import annotations

import cv2
import numpy as np

from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.scenes.shapes import Scene, Shape
from flow3r_ros.types import Bool, Camera, Float32, Float64

LAMP_RADIUS = 0.06
"""radius of the lamp as a share of its distance from what it lights; chosen by eye"""
SURFACE = 0.995
"""share of the way from the lamp to a point on which something must be hit: the point itself is
no shadow"""


def shadows(
    scene: Scene,
    frame: int,
    pose: Float64,
    camera: Camera,
    depth: Float32,
    rng: np.random.Generator,
) -> Float32:
    """How much of the lamp is hidden, float32 `[H, W]` in [0, 1], from every point of a cast image
    `depth [H, W]` at `pose` (camera-to-world).

    Each pixel looks at one random place of the lamp; the answers are then averaged over a few
    pixels.
    """
    seen = np.isfinite(depth)
    z = np.where(seen, depth, np.float32(1))
    local = np.concatenate([rays_of(camera) * z[..., None], z[..., None]], axis=-1)
    points = local.reshape(-1, 3) @ pose[:3, :3].T + pose[:3, 3]
    distance = np.linalg.norm(points - scene.light, axis=-1, keepdims=True)
    lamp = scene.light + LAMP_RADIUS * distance * rng.normal(size=points.shape)
    hidden = np.zeros(len(points), bool)
    for primitive, shape in enumerate(scene.shape):
        if shape != Shape.ROOM:
            hidden |= _between(scene, frame, primitive, lamp, points)
    soft = cv2.GaussianBlur(hidden.reshape(depth.shape).astype(np.float32), (0, 0), 1.5)
    return np.where(seen, np.asarray(soft, np.float32), np.float32(0))


def _between(scene: Scene, frame: int, primitive: int, lamp: Float64, points: Float64) -> Bool:
    """Whether one box or ellipsoid lies between lamp `[M, 3]` and points `[M, 3]`, bool `[M]`."""
    view, half = invert(scene.poses[frame, primitive]), scene.half[primitive]

    def inside(places: Float64) -> Float32:
        """In the axes and half sizes of the shape, `[3, M]`: sums over rows are several times as
        fast as sums over columns."""
        scaled = (places @ view[:3, :3].T + view[:3, 3]) / half
        return np.ascontiguousarray(scaled.T, np.float32)

    start = inside(lamp)
    way = inside(points) - start
    if scene.shape[primitive] == Shape.ELLIPSOID:
        a, b = np.sum(way * way, axis=0), np.sum(way * start, axis=0)
        root = b * b - a * (np.sum(start * start, axis=0) - 1)
        first = (-b - np.sqrt(np.maximum(root, 0))) / np.maximum(a, 1e-12)
        return np.asarray((root > 0) & (first > 0) & (first < SURFACE))
    inverse = 1 / np.where(np.abs(way) < 1e-9, np.float32(1e-9), way)
    middle, reach = -start * inverse, np.abs(inverse)
    enter, leave = np.max(middle - reach, axis=0), np.min(middle + reach, axis=0)
    return np.asarray((enter < leave) & (enter > 0) & (enter < SURFACE))
