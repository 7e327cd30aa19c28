"""Textured boxes, ellipsoids and rooms, each on its own rigid path, and exact ray casting of them.

Every ray has camera z-component 1, so the ray parameter of a hit *is* its depth. All shapes of a
scene live in struct-of-arrays form; a shape is only tested against the image rectangle that its
bounding box projects to.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.scenes.textures import TILE, TextureAtlas
from flow3r_ros.types import Bool, Camera, Float32, Float64, UInt8

Int32 = NDArray[np.int32]

NEAR = 1e-3
_CORNERS = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)], np.float64)


class Shape(IntEnum):
    """What a primitive is: a box seen from outside, an ellipsoid, or a room (a box seen from
    inside)."""

    BOX = 0
    ELLIPSOID = 1
    ROOM = 2


@dataclass(frozen=True)
class Scene:
    """K primitives over N frames; the world is the first camera's optical frame, units are the
    scene's.

    `shape` int `[K]`; `half` half extents `[K, 3]`; `poses` object-to-world `[N, K, 4, 4]`;
    `moving` bool `[K]`; `tile` texture of each face `[K, 6]`; `repeats` texture repetitions per
    unit `[K]`; `offset` `[K, 2]`; `gain`, `bias` colour transforms `[K, 3]`; `light` position of
    the lamp `[3]`; `ambient` share of light that has no direction.
    """

    shape: Int32
    half: Float64
    poses: Float64
    moving: Bool
    tile: Int32
    repeats: Float32
    offset: Float32
    gain: Float32
    bias: Float32
    light: Float64
    ambient: float


def cast_image(scene: Scene, frame: int, pose: Float64, camera: Camera) -> tuple[Float32, Int32]:
    """Depth float32 `[H, W]` and primitive index int32 `[H, W]` (-1 = nothing) seen by a pinhole at
    `pose` (camera-to-world)."""
    rays = rays_of(camera)
    depth = np.full(rays.shape[:2], np.inf, np.float32)
    index = np.full(rays.shape[:2], -1, np.int32)
    for primitive in range(len(scene.shape)):
        bounds = _bounds(scene, frame, primitive, pose)
        if bounds is None:
            continue
        left, right = (
            int(np.clip(np.floor(b * camera.fx + camera.cx) + o, 0, camera.width))
            for b, o in zip(bounds[:2], (0, 2), strict=True)
        )
        top, bottom = (
            int(np.clip(np.floor(b * camera.fy + camera.cy) + o, 0, camera.height))
            for b, o in zip(bounds[2:], (0, 2), strict=True)
        )
        if left >= right or top >= bottom:
            continue
        window = (slice(top, bottom), slice(left, right))
        hit = _intersect(scene, frame, primitive, pose, rays[window])
        nearer = hit < depth[window]
        depth[window] = np.where(nearer, hit, depth[window])
        index[window] = np.where(nearer, np.int32(primitive), index[window])
    return depth, index


def cast_rays(scene: Scene, frame: int, pose: Float64, rays: Float32) -> Float32:
    """Depth float32 `[M]` along free rays `[M, 2]` (inf = nothing)."""
    depth = np.full(len(rays), np.inf, np.float32)
    for primitive in range(len(scene.shape)):
        bounds = _bounds(scene, frame, primitive, pose)
        if bounds is None:
            continue
        x, y = rays[:, 0], rays[:, 1]
        near = np.flatnonzero(
            (x >= bounds[0]) & (x <= bounds[1]) & (y >= bounds[2]) & (y <= bounds[3])
        )
        if near.size:
            depth[near] = np.minimum(
                depth[near], _intersect(scene, frame, primitive, pose, rays[near])
            )
    return depth


def paint(
    scene: Scene,
    frame: int,
    pose: Float64,
    camera: Camera,
    depth: Float32,
    index: Int32,
    atlas: TextureAtlas,
) -> UInt8:
    """Shaded, textured picture uint8 `[H, W, 3]` of a cast image."""
    shape = depth.shape
    rays, flat_depth, flat_index = rays_of(camera).reshape(-1, 2), depth.ravel(), index.ravel()
    u, v, texels, shade = (np.zeros(flat_depth.size, np.float32) for _ in range(4))
    tile = np.zeros(flat_depth.size, np.int32)
    for primitive in np.unique(flat_index[flat_index >= 0]):
        here = np.flatnonzero(flat_index == primitive)
        view = _object_from_camera(scene, frame, int(primitive), pose).astype(np.float32)
        z = flat_depth[here]
        camera_points = np.stack([rays[here, 0] * z, rays[here, 1] * z, z], axis=-1)
        local = camera_points @ view[:3, :3].T + view[:3, 3]
        half = scene.half[primitive].astype(np.float32)
        scaled = local / half
        face = np.argmax(np.abs(scaled), axis=-1)
        sign = np.take_along_axis(scaled, face[:, None], axis=-1)[:, 0] > 0
        normal = _normals(scene, int(primitive), scaled, half, face, sign)
        across = np.where(face == 0, 1, 0)
        along = np.where(face == 2, 1, 2)
        repeats = scene.repeats[primitive]
        u[here] = (
            np.take_along_axis(local, across[:, None], axis=-1)[:, 0] * repeats
            + scene.offset[primitive, 0]
        )
        v[here] = (
            np.take_along_axis(local, along[:, None], axis=-1)[:, 0] * repeats
            + scene.offset[primitive, 1]
        )
        tile[here] = scene.tile[primitive, face * 2 + sign]
        sight = local - view[:3, 3]
        facing = np.abs(np.sum(sight * normal, axis=-1)) / np.maximum(
            np.linalg.norm(sight, axis=-1), 1e-6
        )
        texels[here] = (
            z / np.float32(camera.fx) * repeats * TILE / np.sqrt(np.maximum(facing, 0.02))
        )
        shade[here] = _shade(scene, frame, int(primitive), local, normal)
    colour = atlas.sample(
        tile.reshape(shape), u.reshape(shape), v.reshape(shape), texels.reshape(shape)
    ).astype(np.float32)
    safe = np.maximum(index, 0)
    lit = (colour * scene.gain[safe] + scene.bias[safe]) * shade.reshape(shape)[..., None]
    lit[index < 0] = 0.0
    return np.asarray(np.clip(lit, 0, 255), np.uint8)


def distance_to_shapes(points: Float64, half: Float64, poses: Float64) -> Float64:
    """Distance `[...]` of points `[..., 3]` to the solid bounding box of one primitive with poses
    `[..., 4, 4]` (0 = inside)."""
    local = np.einsum("...ji,...j->...i", poses[..., :3, :3], points - poses[..., :3, 3])
    return np.asarray(np.linalg.norm(np.maximum(np.abs(local) - half, 0.0), axis=-1))


def _object_from_camera(scene: Scene, frame: int, primitive: int, pose: Float64) -> Float64:
    return np.asarray(invert(scene.poses[frame, primitive]) @ pose)


def _bounds(
    scene: Scene, frame: int, primitive: int, pose: Float64
) -> tuple[float, float, float, float] | None:
    """(x0, x1, y0, y1) of the primitive in ray coordinates; infinite where it crosses the camera
    plane, None where it is behind."""
    everywhere = (-np.inf, np.inf, -np.inf, np.inf)
    if scene.shape[primitive] == Shape.ROOM:
        return everywhere
    camera_from_object = invert(_object_from_camera(scene, frame, primitive, pose))
    corners = (_CORNERS * scene.half[primitive]) @ camera_from_object[
        :3, :3
    ].T + camera_from_object[:3, 3]
    if corners[:, 2].max() <= NEAR:
        return None
    if corners[:, 2].min() <= NEAR:
        return everywhere
    x, y = corners[:, 0] / corners[:, 2], corners[:, 1] / corners[:, 2]
    return float(x.min()), float(x.max()), float(y.min()), float(y.max())


def _intersect(scene: Scene, frame: int, primitive: int, pose: Float64, rays: Float32) -> Float32:
    """Depth of the first hit of rays `[..., 2]` with one primitive, float32 `[...]`, inf where
    missed."""
    view = _object_from_camera(scene, frame, primitive, pose)
    half = scene.half[primitive].astype(np.float32)
    direction, origin = view[:3, :3].astype(np.float32), view[:3, 3].astype(np.float32)
    x, y = rays[..., 0], rays[..., 1]
    towards = [
        direction[axis, 0] * x + direction[axis, 1] * y + direction[axis, 2] for axis in range(3)
    ]
    if scene.shape[primitive] == Shape.ELLIPSOID:
        return _intersect_ellipsoid(towards, origin, half)
    enter = np.full(x.shape, -np.inf, np.float32)
    leave = np.full(x.shape, np.inf, np.float32)
    for axis in range(3):
        inverse = 1.0 / np.where(np.abs(towards[axis]) < 1e-9, np.float32(1e-9), towards[axis])
        middle, reach = -origin[axis] * inverse, half[axis] * np.abs(inverse)
        np.maximum(enter, middle - reach, out=enter)
        np.minimum(leave, middle + reach, out=leave)
    if scene.shape[primitive] == Shape.ROOM:
        return np.where((leave > NEAR) & (enter < leave), leave, np.float32(np.inf))
    return np.where((enter > NEAR) & (enter < leave), enter, np.float32(np.inf))


def _intersect_ellipsoid(towards: list[Float32], origin: Float32, half: Float32) -> Float32:
    """Smaller root of |origin + t towards|^2 = 1 in the unit-sphere frame."""
    start = origin / half
    a = sum((d / h) ** 2 for d, h in zip(towards, half, strict=True))
    b = sum(d / h * s for d, h, s in zip(towards, half, start, strict=True))
    c = float(start @ start) - 1.0
    root = b * b - a * np.float32(c)
    hit = (-b - np.sqrt(np.maximum(root, 0))) / a
    return np.asarray(np.where((root > 0) & (hit > NEAR), hit, np.float32(np.inf)), np.float32)


def _normals(
    scene: Scene, primitive: int, scaled: Float32, half: Float32, face: NDArray[np.intp], sign: Bool
) -> Float32:
    """Unit outward normals `[M, 3]` in the primitive's frame."""
    if scene.shape[primitive] == Shape.ELLIPSOID:
        normal = scaled / half
        return np.asarray(normal / np.linalg.norm(normal, axis=-1, keepdims=True), np.float32)
    normal = np.zeros_like(scaled)
    np.put_along_axis(
        normal, face[:, None], np.where(sign, 1.0, -1.0)[:, None].astype(np.float32), axis=-1
    )
    return normal


def _shade(scene: Scene, frame: int, primitive: int, local: Float32, normal: Float32) -> Float32:
    """Ambient plus Lambertian light of a lamp that does not move, in [ambient, 1]."""
    object_from_world = invert(scene.poses[frame, primitive])
    lamp = (object_from_world[:3, :3] @ scene.light + object_from_world[:3, 3]).astype(np.float32)
    towards = lamp - local
    cosine = np.abs(np.sum(towards * normal, axis=-1)) / np.maximum(
        np.linalg.norm(towards, axis=-1), 1e-6
    )
    return np.asarray(scene.ambient + (1.0 - scene.ambient) * cosine, np.float32)
