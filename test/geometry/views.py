"""Two views of a textured world with exact answers: ray-cast planes with a smooth procedural
texture, for the tests of geometry."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry import lie
from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.flow import geometric_flow
from flow3r_ros.types import Bool, Camera, Float32, Float64, UInt8

CAMERA = Camera(336, 252, 280.0, 280.0, 167.5, 125.5)


@dataclass(frozen=True)
class View:
    gray: UInt8
    depth: Float32


def texture(seed: int = 0, size: int = 1024) -> Float32:
    """Noise at several scales, tileable, 20..235 gray levels."""
    rng = np.random.default_rng(seed)
    image = np.zeros((size, size), np.float32)
    for cell, gain in ((4, 1.0), (8, 1.5), (16, 2.0), (64, 2.0)):
        coarse = rng.normal(size=(size // cell, size // cell)).astype(np.float32)
        image += (
            gain
            * cv2.resize(
                np.tile(coarse, (2, 2)), (2 * size, 2 * size), interpolation=cv2.INTER_CUBIC
            )[:size, :size]
        )
    return np.asarray(np.clip(127 + 30 * image / image.std() * 1.2, 20, 235), np.float32)


TEXTURE = texture()
# normal n and offset d of n . x = d in the world, unit pixels per metre of texture: back wall,
# floor, left wall, box
PLANES = (
    (np.array([0.1, 0.0, 1.0]), 6.0),
    (np.array([0.0, 1.0, 0.1]), 1.6),
    (np.array([-1.0, 0.0, 0.15]), 2.5),
)
BOX = (np.array([0.3, -0.4, 3.0]), 0.7)
"""centre and half width of a square facing the first camera"""


def render(
    T_world_cam: Float64,
    camera: Camera = CAMERA,
    box_shift: Float64 | None = None,
    noise: float = 0.0,
    seed: int = 0,
) -> View:
    """Gray image and depth of the room; `box_shift` moves the square in the middle
    independently."""
    columns, rows = np.meshgrid(
        (np.arange(camera.width) - camera.cx) / camera.fx,
        (np.arange(camera.height) - camera.cy) / camera.fy,
    )
    rays = np.stack([columns, rows, np.ones_like(rows)], -1) @ T_world_cam[:3, :3].T
    origin = T_world_cam[:3, 3]
    depth = np.full(columns.shape, np.inf)
    value = np.zeros(columns.shape, np.float32)
    for index, (normal, offset) in enumerate(PLANES):
        _shade(depth, value, rays, origin, normal, offset - normal @ origin, index)
    centre = BOX[0] + (np.zeros(3) if box_shift is None else box_shift)
    hit = (centre[2] - origin[2]) / rays[..., 2]
    point = origin + hit[..., None] * rays - centre
    on_box = (
        (np.abs(point[..., 0]) < BOX[1])
        & (np.abs(point[..., 1]) < BOX[1])
        & (hit > 0)
        & (hit < depth)
    )
    depth[on_box] = hit[on_box]
    value[on_box] = _lookup(point[..., 0], point[..., 1], 3)[on_box]
    image = value + np.random.default_rng(seed).normal(0, noise, value.shape) if noise else value
    return View(np.clip(np.rint(image), 0, 255).astype(np.uint8), depth.astype(np.float32))


def _shade(depth, value, rays, origin, normal, offset, index):
    with np.errstate(divide="ignore"):
        hit = offset / (rays @ normal)
    nearer = (hit > 0.05) & (hit < depth)
    basis = np.linalg.svd(normal[None])[2][1:]
    point = np.where(nearer, hit, 0.0)[..., None] * rays + origin
    depth[nearer] = hit[nearer]
    value[nearer] = _lookup(point @ basis[0], point @ basis[1], index)[nearer]


def _lookup(x, y, index):
    u, v = (np.asarray(c * 90.0 + 130.0 * index, np.float32) % 1023 for c in (x, y))
    return cv2.remap(TEXTURE, u, v, cv2.INTER_LINEAR)


def exact_correspondence(
    T_a_b: Float64,
    T_world_a: Float64 | None = None,
    noise: float = 0.0,
    outliers: float = 0.0,
    seed: int = 0,
    camera: Camera = CAMERA,
) -> tuple[Correspondence, View, Bool]:
    """Correspondence from geometry instead of images, with Gaussian noise and a share of random
    vectors; view a and the outlier mask."""
    T_a = np.eye(4) if T_world_a is None else T_world_a
    a, b = render(T_a, camera), render(T_a @ T_a_b, camera)
    rng = np.random.default_rng(seed)
    forward, covisible = geometric_flow(a.depth, T_a_b, camera, camera, b.depth)
    backward, covisible_back = geometric_flow(b.depth, lie.invert(T_a_b), camera, camera, a.depth)
    forward = forward + rng.normal(0, noise, forward.shape).astype(np.float32) if noise else forward
    wrong = rng.random(covisible.shape) < outliers
    forward[wrong] += rng.uniform(-25, 25, (int(wrong.sum()), 2)).astype(np.float32)
    ones = np.ones(covisible.shape, np.float32)
    flow = Correspondence(
        forward,
        covisible.astype(np.float32),
        ones,
        backward,
        covisible_back.astype(np.float32),
        ones,
    )
    return flow, a, wrong


def rotation_error_deg(T: Float64, truth: Float64) -> float:
    return float(np.degrees(lie.rotation_angle(T[:3, :3].T @ truth[:3, :3])))


def direction_error_deg(T: Float64, truth: Float64) -> float:
    a, b = T[:3, 3], truth[:3, 3]
    return float(
        np.degrees(
            np.arccos(np.clip(a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-12), -1, 1))
        )
    )
