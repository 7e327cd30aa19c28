"""The scene factory: `render_clip(seed)` gives pictures with exact depth, poses, intrinsics, dense
flow and covisibility.

Everything follows from the seed. Depth and flow are ray-cast analytically, never interpolated, so
ground truth is exact at any resolution: `SceneClip.resized` casts again instead of shrinking maps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.scenes.layouts import (
    Layout,
    SceneBuilder,
    fill_clutter,
    fill_room,
    fill_street,
    start_pose,
)
from flow3r_ros.training.scenes.paths import Motion, random_path
from flow3r_ros.training.scenes.photometry import develop, random_photometry
from flow3r_ros.training.scenes.shadows import shadows as shadows_of
from flow3r_ros.training.scenes.shapes import Scene, cast_image, cast_rays, paint
from flow3r_ros.training.scenes.textures import Split, texture_atlas
from flow3r_ros.types import Bool, Camera, Float32, Float64, UInt8

if TYPE_CHECKING:
    from flow3r_ros.training.scenes.torch_renderer import TorchScene

_FILL = {"room": fill_room, "street": fill_street, "clutter": fill_clutter}
_MOTIONS: dict[Layout, tuple[tuple[Motion, float], ...]] = {
    "room": (
        ("handheld", 0.6),
        ("sideways", 0.12),
        ("orbit", 0.1),
        ("rotation", 0.12),
        ("static", 0.06),
    ),
    "street": (("driving", 0.75), ("handheld", 0.17), ("rotation", 0.04), ("static", 0.04)),
    "clutter": (("orbit", 0.5), ("handheld", 0.35), ("sideways", 0.1), ("rotation", 0.05)),
}

SHADOWS = (0.0, 0.25, 0.5, 0.75)
"""shares of the light that a shadow takes, one of them a scene"""


@dataclass(frozen=True)
class SceneClip:
    """N frames of a synthetic scene with exact ground truth.

    `rgb` uint8 `[N, H, W, 3]`; `depth` float32 `[N, H, W]` along the optical axis, scene units;
    `poses` float64 `[N, 4, 4]` camera-to-world, first frame identity; `primitive` int32 `[N, H,
    W]`, what each pixel sees; `moving` bool `[N, H, W]`, pixels of independently moving objects;
    `times` float64 `[N]`; `device` where torch casts rays, None = numpy does.
    """

    rgb: UInt8
    depth: Float32
    poses: Float64
    camera: Camera
    primitive: NDArray[np.int32]
    times: Float64
    scene: Scene
    device: str | None = None

    @property
    def moving(self) -> Bool:
        """Pixels of independently moving objects, bool `[N, H, W]`."""
        return np.asarray(self.scene.moving[self.primitive])

    def flow(self, source: int, target: int) -> tuple[Float32, Bool]:
        """Where every pixel of `source` is in `target`.

        Returns displacement float32 `[H, W, 2]` in pixels and covisibility bool `[H, W]`: the same
        surface point lies inside the target image, in front of it, and nothing hides it. Moving
        objects are followed.
        """
        if self.device is not None:
            return _in_torch(self.scene, self.poses, self.camera, self.device).flow(
                self.depth, self.primitive, source, target
            )
        points = rays_of(self.camera).astype(np.float64)
        points = (
            np.concatenate([points, np.ones_like(points[..., :1])], axis=-1)
            * self.depth[source][..., None]
        )
        camera_from_world = invert(self.poses[target])
        objects = self.scene.poses
        motions = camera_from_world @ objects[target] @ invert(objects[source]) @ self.poses[source]
        moved = np.empty_like(points)
        for primitive in np.unique(self.primitive[source]):
            here = self.primitive[source] == primitive
            moved[here] = points[here] @ motions[primitive, :3, :3].T + motions[primitive, :3, 3]
        z = moved[..., 2]
        front = z > 1e-3
        rays = moved[..., :2] / np.where(front, z, 1.0)[..., None]
        x = rays[..., 0] * self.camera.fx + self.camera.cx
        y = rays[..., 1] * self.camera.fy + self.camera.cy
        visible = (
            front
            & (x >= 0)
            & (x <= self.camera.width - 1)
            & (y >= 0)
            & (y <= self.camera.height - 1)
        )
        seen = cast_rays(self.scene, target, self.poses[target], rays[visible].astype(np.float32))
        visible[visible] = seen > z[visible] * 0.999 - 1e-4
        columns, rows = np.arange(self.camera.width), np.arange(self.camera.height)
        return np.stack([x - columns[None, :], y - rows[:, None]], axis=-1).astype(
            np.float32
        ), visible

    def resized(self, width: int, height: int) -> SceneClip:
        """The same clip on another grid: pictures by area averaging, ground truth cast anew."""
        camera = scaled(self.camera, width, height)
        depth, primitive = _cast(self.scene, self.poses, camera, self.device)
        rgb = np.stack(
            [cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in self.rgb]
        )
        return SceneClip(
            rgb, depth, self.poses, camera, primitive, self.times, self.scene, self.device
        )


def render_clip(
    seed: int,
    frames: int = 4,
    width: int = 168,
    height: int = 126,
    *,
    layout: Layout | None = None,
    motion: Motion | None = None,
    textures: Split = "train",
    movers: int | None = None,
    noise: float = 1.0,
    speed: float | None = None,
    turn: float | None = None,
    times: Float64 | None = None,
    field_of_view: float | None = None,
    shadows: float | None = 0.0,
    motion_blur: bool = False,
    device: str | None = None,
) -> SceneClip:
    """Render one clip; equal arguments give equal clips.

    Args:
        seed: the only source of randomness.
        frames, width, height: size of the clip; `[frames, height, width]` pixels.
        layout, motion: what kind of world and path; None = random.
        textures: which textures; `held_out` shares none with `train`.
        movers: independently moving objects tried; None = random, often none.
        noise: strength of the photometric imperfections, 0 = none.
        speed: translation per unit of time as a share of the scene's size; None = random,
            log-uniform in 0.01-0.3.
        turn: rotation per unit of time in radians; None = random, 0.5-12 degrees.
        times: `[frames]` instants; None = frame number.
        field_of_view: horizontal, degrees; None = random, 40-95.
        shadows: share of the light that a shadow takes; None = random (`SHADOWS`).
        motion_blur: some clips have it.
        device: torch casts rays and paints there; None = numpy does. Both give the same clip up to
            rounding.
    """
    rng = np.random.default_rng((seed, 3))
    layout = layout or str(rng.choice(get_args(Layout), p=(0.5, 0.2, 0.3)))  # type: ignore[assignment]
    assert layout is not None
    names, shares = zip(*_MOTIONS[layout], strict=True)
    motion = motion or str(rng.choice(names, p=shares))  # type: ignore[assignment]
    assert motion is not None
    size = float(np.exp(rng.uniform(np.log(0.7), np.log(6.0))))
    speed = float(np.exp(rng.uniform(np.log(0.01), np.log(0.3)))) if speed is None else speed
    turn = (
        float(np.deg2rad(np.exp(rng.uniform(np.log(0.5), np.log(12.0))))) if turn is None else turn
    )
    movers = int(rng.choice((0, 1, 2, 3), p=(0.6, 0.2, 0.12, 0.08))) if movers is None else movers
    camera = _random_camera(rng, width, height, field_of_view)
    times = np.arange(frames, dtype=np.float64) if times is None else times
    path = random_path(rng, motion, start_pose(rng, layout), speed * size, turn, radius=size)
    cameras = path.poses(times)
    atlas = texture_atlas(textures)
    builder = SceneBuilder(rng, atlas, cameras, times, clearance=0.12 * size)
    scene = builder.build(_FILL[layout](builder, rng, size, movers))
    poses = invert(cameras[0]) @ cameras
    photometry = random_photometry(rng, frames, noise, motion_blur)
    depth, primitive = _cast(scene, poses, camera, device)
    if device is None:
        parts = zip(poses, depth, primitive, strict=True)
        painted = [
            paint(scene, frame, pose, camera, z, seen, atlas)
            for frame, (pose, z, seen) in enumerate(parts)
        ]
    else:
        painted = list(_in_torch(scene, poses, camera, device).paint(depth, primitive, atlas))
    strength = (
        float(np.random.default_rng((seed, 29)).choice(SHADOWS)) if shadows is None else shadows
    )
    if strength > 0:
        painted = [
            _darkened(scene, frame, pose, camera, z, strength, picture, seed)
            for frame, (pose, z, picture) in enumerate(zip(poses, depth, painted, strict=True))
        ]
    pictures = (
        [develop(picture, photometry, frame, rng) for frame, picture in enumerate(painted)]
        if noise > 0
        else painted
    )
    return SceneClip(np.stack(pictures), depth, poses, camera, primitive, times, scene, device)


def _darkened(
    scene: Scene,
    frame: int,
    pose: Float64,
    camera: Camera,
    depth: Float32,
    strength: float,
    picture: UInt8,
    seed: int,
) -> UInt8:
    """The picture with the shadows of its scene."""
    rng = np.random.default_rng((seed, 29, frame))
    light = 1 - np.float32(strength) * shadows_of(scene, frame, pose, camera, depth, rng)
    return (picture * light[..., None]).astype(np.uint8)


def _cast(
    scene: Scene, poses: Float64, camera: Camera, device: str | None
) -> tuple[Float32, NDArray[np.int32]]:
    """Depth and primitive `[N, H, W]` of every frame."""
    if device is not None:
        return _in_torch(scene, poses, camera, device).cast()
    cast = [cast_image(scene, frame, pose, camera) for frame, pose in enumerate(poses)]
    return np.stack([depth for depth, _ in cast]), np.stack([primitive for _, primitive in cast])


def _in_torch(scene: Scene, poses: Float64, camera: Camera, device: str) -> TorchScene:
    # whoever renders with numpy does not wait seconds for torch
    from flow3r_ros.training.scenes.torch_renderer import TorchScene

    return TorchScene(scene, poses, camera, device)


def _random_camera(
    rng: np.random.Generator, width: int, height: int, field_of_view: float | None
) -> Camera:
    """A pinhole whose wider side spans 40-95 degrees, centre within 3 % of the middle."""
    angle = np.deg2rad(rng.uniform(40, 95) if field_of_view is None else field_of_view)
    focal = 0.5 * max(width, height) / np.tan(0.5 * angle)
    cx = (width - 1) / 2 + rng.normal(0, 0.01) * width
    cy = (height - 1) / 2 + rng.normal(0, 0.01) * height
    return Camera(
        width,
        height,
        float(focal),
        float(focal * np.exp(rng.normal(0, 0.005))),
        float(cx),
        float(cy),
    )
