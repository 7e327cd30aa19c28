"""The renderer of `scene_shapes` in torch, all frames of a clip at once, on any device.

The same scene gives the same depth, flow, covisibility and, up to OpenCV's fixed-point
interpolation, the same pictures; needs torch, numpy and OpenCV only. Compared with the numpy
renderer on the CPU device, where it is the slower one; never run on a GPU yet.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.scenes.shapes import NEAR, Int32, Scene, Shape
from flow3r_ros.training.scenes.textures import LEVELS, TILE, TextureAtlas
from flow3r_ros.types import Bool, Camera, Float32, Float64, UInt8


class TorchScene:
    """A scene seen from one camera pose per frame.

    Args:
        scene: K primitives over N frames.
        poses: camera-to-world `[N, 4, 4]`.
        camera: pinhole of all frames, `[H, W]` pixels.
        device: of torch, such as `cpu` or `cuda`.

    Raises TrainingError where torch has no such device.
    """

    def __init__(self, scene: Scene, poses: Float64, camera: Camera, device: str) -> None:
        self._scene, self._poses, self._camera = scene, poses, camera
        try:
            self._device = torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = str(error).splitlines()[0]
            raise TrainingError(
                f"torch cannot render on {device} ({reason})",
                "leave out --device: numpy renders on the CPU",
            ) from error
        self._views = self._float(invert(scene.poses) @ poses[:, None])
        self._half = self._float(scene.half)
        self._rays = self._float(rays_of(camera))

    def cast(self) -> tuple[Float32, Int32]:
        """Depth float32 `[N, H, W]` and primitive index int32 `[N, H, W]` (-1 = nothing)."""
        depth, index = self._cast(
            self._views, self._rays.expand(len(self._views), *self._rays.shape).flatten(1, 2)
        )
        shape = (len(self._views), self._camera.height, self._camera.width)
        return depth.reshape(shape).cpu().numpy(), index.reshape(shape).cpu().numpy().astype(
            np.int32
        )

    def paint(self, depth: Float32, index: Int32, atlas: TextureAtlas) -> UInt8:
        """Shaded, textured pictures uint8 `[N, H, W, 3]` of what `cast` returned."""
        scene, camera = self._scene, self._camera
        seen = torch.from_numpy(index).to(self._device, torch.int64)
        safe, z = seen.clamp(min=0), self._float(depth)
        frame = torch.arange(len(seen), device=self._device)[:, None, None]
        view = self._views[frame, safe]
        origin, half = view[..., :3, 3], self._half[safe]
        ahead = torch.cat([self._rays, torch.ones_like(self._rays[..., :1])], dim=-1) * z[..., None]
        local = (view[..., :3, :3] @ ahead[..., None])[..., 0] + origin
        scaled = local / half
        face = scaled.abs().argmax(dim=-1, keepdim=True)
        sign = scaled.gather(-1, face) > 0
        normal = torch.zeros_like(scaled).scatter(-1, face, sign.float() * 2 - 1)
        round_shape = torch.from_numpy(scene.shape == Shape.ELLIPSOID).to(self._device)[safe][
            ..., None
        ]
        normal = torch.where(
            round_shape, torch.nn.functional.normalize(scaled / half, dim=-1), normal
        )
        repeats, offset = self._float(scene.repeats)[safe], self._float(scene.offset)[safe]
        u = local.gather(-1, (face == 0).long())[..., 0] * repeats + offset[..., 0]
        v = local.gather(-1, 2 - (face == 2).long())[..., 0] * repeats + offset[..., 1]
        tile = torch.from_numpy(scene.tile).to(self._device, torch.int64)[
            safe, (face * 2 + sign)[..., 0]
        ]
        facing = _cosine(local - origin, normal)
        texels = z / camera.fx * repeats * TILE / facing.clamp(min=0.02).sqrt()
        world = invert(scene.poses)
        lamp = self._float(world[..., :3, :3] @ scene.light + world[..., :3, 3])[frame, safe]
        shade = scene.ambient + (1.0 - scene.ambient) * _cosine(lamp - local, normal)
        lit = (
            _sample(atlas, tile, u, v, texels) * self._float(scene.gain)[safe]
            + self._float(scene.bias)[safe]
        ) * shade[..., None]
        return np.asarray(
            torch.where(seen[..., None] < 0, 0.0, lit.clamp(0, 255)).to(torch.uint8).cpu().numpy()
        )

    def flow(self, depth: Float32, index: Int32, source: int, target: int) -> tuple[Float32, Bool]:
        """Displacement float32 `[H, W, 2]` in pixels and covisibility bool `[H, W]`, as
        `SceneClip.flow`, from what `cast` returned."""
        scene, camera, poses = self._scene, self._camera, self._poses
        motions = (
            invert(poses[target])
            @ scene.poses[target]
            @ invert(scene.poses[source])
            @ poses[source]
        )
        motion = torch.from_numpy(motions).to(self._device)[
            torch.from_numpy(index[source]).to(self._device, torch.int64)
        ]
        rays = self._rays.double()
        points = (
            torch.cat([rays, torch.ones_like(rays[..., :1])], dim=-1)
            * self._float(depth[source])[..., None]
        )
        moved = (motion[..., :3, :3] @ points[..., None])[..., 0] + motion[..., :3, 3]
        z = moved[..., 2]
        front = z > NEAR
        there = moved[..., :2] / torch.where(front, z, 1.0)[..., None]
        x, y = there[..., 0] * camera.fx + camera.cx, there[..., 1] * camera.fy + camera.cy
        visible = front & (x >= 0) & (x <= camera.width - 1) & (y >= 0) & (y <= camera.height - 1)
        nearest, _ = self._cast(self._views[target : target + 1], there[visible].float()[None])
        visible[visible.clone()] = nearest[0] > z[visible] * 0.999 - 1e-4
        columns, rows = (
            torch.arange(side, device=self._device) for side in (camera.width, camera.height)
        )
        displacement = torch.stack([x - columns, y - rows[:, None]], dim=-1).float()
        return displacement.cpu().numpy(), visible.cpu().numpy()

    def _cast(self, views: Tensor, rays: Tensor) -> tuple[Tensor, Tensor]:
        """Depth and primitive `[M, P]` of rays `[M, P, 2]` of M frames with object-from-camera
        `views [M, K, 4, 4]`."""
        depth = torch.full(rays.shape[:2], torch.inf, device=self._device)
        index = torch.full(rays.shape[:2], -1, device=self._device)
        x, y = rays.unbind(-1)
        for primitive, kind in enumerate(self._scene.shape):
            view = views[:, primitive, :3, :, None]
            towards = [
                view[:, axis, 0] * x + view[:, axis, 1] * y + view[:, axis, 2] for axis in range(3)
            ]
            hit = _intersect(Shape(int(kind)), towards, view[:, :, 3], self._half[primitive])
            nearer = hit < depth
            depth, index = torch.where(nearer, hit, depth), torch.where(nearer, primitive, index)
        return depth, index

    def _float(self, array: Float64 | Float32) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, np.float32)).to(self._device)


def _intersect(shape: Shape, towards: list[Tensor], origin: Tensor, half: Tensor) -> Tensor:
    """Depth of the first hit `[M, P]`, inf where missed; directions `[M, P]` per axis, `origin [M,
    3, 1]`, all in the primitive's frame."""
    if shape is Shape.ELLIPSOID:
        start, way = origin / half[:, None], [towards[axis] / half[axis] for axis in range(3)]
        a = way[0] ** 2 + way[1] ** 2 + way[2] ** 2
        b = way[0] * start[:, 0] + way[1] * start[:, 1] + way[2] * start[:, 2]
        root = b * b - a * ((start**2).sum(dim=1) - 1.0)
        hit = (-b - root.clamp(min=0).sqrt()) / a
        return torch.where((root > 0) & (hit > NEAR), hit, torch.inf)
    enter, leave = torch.full_like(towards[0], -torch.inf), torch.full_like(towards[0], torch.inf)
    for axis in range(3):
        inverse = 1.0 / torch.where(towards[axis].abs() < 1e-9, 1e-9, towards[axis])
        middle, reach = -origin[:, axis] * inverse, half[axis] * inverse.abs()
        enter, leave = torch.maximum(enter, middle - reach), torch.minimum(leave, middle + reach)
    hit = leave if shape is Shape.ROOM else enter
    return torch.where((hit > NEAR) & (enter < leave), hit, torch.inf)


def _sample(atlas: TextureAtlas, tile: Tensor, u: Tensor, v: Tensor, texels: Tensor) -> Tensor:
    """Colours float32 `[..., 3]`, whole grey levels: `TextureAtlas.sample` with exact bilinear
    weights."""
    image, origins = _on_device(atlas, tile.device)
    level = (texels.clamp(min=1e-3).log2() + 0.25).clamp(0, LEVELS - 1).long()
    size = TILE / torch.pow(2.0, level)
    origin = origins[tile, level]
    x = origin[..., 0] + (u - u.floor()) * size - 0.5
    y = origin[..., 1] + (v - v.floor()) * size - 0.5
    left, top = x.floor().long(), y.floor().long()
    right, down = (x - left)[..., None], (y - top)[..., None]
    upper = image[top, left] * (1 - right) + image[top, left + 1] * right
    lower = image[top + 1, left] * (1 - right) + image[top + 1, left + 1] * right
    return (upper * (1 - down) + lower * down).round()


@lru_cache(maxsize=3)
def _on_device(atlas: TextureAtlas, device: torch.device) -> tuple[Tensor, Tensor]:
    return torch.from_numpy(atlas.image).to(device), torch.from_numpy(atlas.origin).to(device)


def _cosine(vector: Tensor, normal: Tensor) -> Tensor:
    """Absolute cosine `[...]` between vectors and unit normals `[..., 3]`."""
    cosine: Tensor = (vector * normal).sum(dim=-1).abs() / vector.norm(dim=-1).clamp(min=1e-6)
    return cosine
