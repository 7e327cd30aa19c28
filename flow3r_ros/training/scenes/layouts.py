"""Random worlds: furnished rooms, streets and clutter to circle, with the camera kept clear of
everything.

A layout is built in a gravity frame (x right, y down, z forward; the camera starts at the origin)
around a camera path that is chosen first; whatever would come closer to the path than `clearance`
is left out.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from flow3r_ros.geometry.lie import apply, invert, rigid, so3_exp
from flow3r_ros.training.scenes.shapes import Scene, Shape, distance_to_shapes
from flow3r_ros.training.scenes.textures import TextureAtlas
from flow3r_ros.types import Float64

Layout = Literal["room", "street", "clutter"]


class SceneBuilder:
    """Collects primitives along a camera path and turns them into a Scene.

    Args:
        cameras: camera-to-world poses `[N, 4, 4]` in the gravity frame.
        times: `[N]`, at which moving objects are placed.
        clearance: least distance between the path and any object, scene units.
    """

    def __init__(
        self,
        rng: np.random.Generator,
        atlas: TextureAtlas,
        cameras: Float64,
        times: Float64,
        clearance: float,
    ) -> None:
        self._rng, self._atlas, self._cameras, self._times, self._clearance = (
            rng,
            atlas,
            cameras,
            times,
            clearance,
        )
        self._shape: list[Shape] = []
        self._half: list[Float64] = []
        self._poses: list[Float64] = []
        self._moving: list[bool] = []
        self._repeats: list[float] = []
        self._tiles: list[list[int]] = []

    def add(
        self,
        shape: Shape,
        half: Float64,
        pose: Float64,
        *,
        repeats: float | None = None,
        velocity: Float64 | None = None,
        plain: bool = False,
    ) -> bool:
        """Add one primitive with object-to-world `pose` at time 0; False where it would touch the
        camera path.

        A room grows until the whole path fits. `velocity` `[6]` moves a primitive: translation in
        the gravity frame and rotation vector about its own centre, per unit of time. `plain` leaves
        it untextured.
        """
        poses = np.repeat(pose[None], len(self._times), axis=0)
        if velocity is not None:
            for index, time in enumerate(self._times - self._times[0]):
                poses[index, :3, 3] += velocity[:3] * time
                poses[index, :3, :3] = so3_exp(velocity[3:] * time) @ pose[:3, :3]
        if shape is Shape.ROOM:
            half = np.maximum(
                half,
                np.abs(apply(invert(pose), self._cameras[:, :3, 3])).max(axis=0)
                + 2 * self._clearance,
            )
        else:
            here = distance_to_shapes(self._cameras[:, :3, 3], half, poses)
            between = distance_to_shapes(
                0.5 * (self._cameras[1:, :3, 3] + self._cameras[:-1, :3, 3]), half, poses[1:]
            )
            if min(here.min(), between.min(initial=np.inf)) < self._clearance:
                return False
        rng = self._rng
        self._shape.append(shape)
        self._half.append(np.asarray(half, np.float64))
        self._poses.append(poses)
        self._moving.append(velocity is not None)
        self._repeats.append(
            repeats if repeats is not None else float(rng.uniform(0.35, 0.9) / max(half))
        )
        choice = self._atlas.plain if plain else np.arange(self._atlas.count)
        different = shape is Shape.ROOM or rng.random() < 0.3
        self._tiles.append(
            [
                int(tile)
                for tile in (
                    rng.choice(choice, 6) if different else np.repeat(rng.choice(choice), 6)
                )
            ]
        )
        return True

    def build(self, light: Float64) -> Scene:
        """The scene in the first camera's frame."""
        rng, count = self._rng, len(self._shape)
        camera_from_gravity = invert(self._cameras[0])
        chroma = np.where(rng.random((count, 1)) < 0.25, 0.35, 0.08)
        gain = rng.uniform(0.5, 1.1, (count, 1)) * np.exp(chroma * rng.normal(size=(count, 3)))
        bias = rng.uniform(-10, 60, (count, 1)) + 30 * chroma * rng.normal(size=(count, 3))
        return Scene(
            shape=np.array(self._shape, np.int32),
            half=np.stack(self._half),
            poses=np.ascontiguousarray(camera_from_gravity @ np.stack(self._poses, axis=1)),
            moving=np.array(self._moving),
            tile=np.array(self._tiles, np.int32),
            repeats=np.array(self._repeats, np.float32),
            offset=rng.random((count, 2)).astype(np.float32),
            gain=gain.astype(np.float32),
            bias=bias.astype(np.float32),
            light=camera_from_gravity[:3, :3] @ light + camera_from_gravity[:3, 3],
            ambient=float(rng.uniform(0.45, 0.8)),
        )


def start_pose(rng: np.random.Generator, layout: Layout) -> Float64:
    """Where the camera starts: at the origin, looking forward and a little down, `[4, 4]`."""
    down = {"room": rng.normal(4, 9), "street": rng.normal(1, 3), "clutter": rng.uniform(5, 45)}[
        layout
    ]
    roll = rng.normal(0, 4)
    pose = np.eye(4)
    pose[:3, :3] = so3_exp(np.deg2rad([-down, 0.0, 0.0])) @ so3_exp(np.deg2rad([0.0, 0.0, roll]))
    return pose


def fill_room(builder: SceneBuilder, rng: np.random.Generator, size: float, movers: int) -> Float64:
    """Walls, furniture, posters and hanging things around the path; returns the lamp's position
    `[3]`."""
    half = np.array([rng.uniform(0.9, 2.0), rng.uniform(0.45, 0.8), rng.uniform(0.9, 2.0)]) * size
    centre = np.array(
        [
            rng.uniform(-0.4, 0.4) * half[0],
            rng.uniform(-0.2, 0.2) * half[1],
            rng.uniform(0.0, 0.7) * half[2],
        ]
    )
    yaw = rng.uniform(-0.6, 0.6)
    room = _placed(centre, yaw)
    builder.add(
        Shape.ROOM,
        half,
        room,
        repeats=float(rng.uniform(0.2, 0.8) / size),
        plain=bool(rng.random() < 0.35),
    )
    for _ in range(int(rng.integers(5, 14))):
        extent = rng.uniform((0.06, 0.08, 0.06), (0.4, 0.55, 0.4)) * size
        x, z = rng.uniform(-1, 1, 2) * (half[0] - extent[0], half[2] - extent[2])
        pose = room @ _placed(
            np.array([x, half[1] - extent[1], z]), float(rng.choice((0.0, rng.uniform(-1.5, 1.5))))
        )
        builder.add(Shape.BOX, extent, pose)
    for _ in range(int(rng.integers(2, 6))):
        wall, flat = (
            int(rng.choice((0, 2))),
            np.array([rng.uniform(0.1, 0.4), rng.uniform(0.08, 0.25), rng.uniform(0.1, 0.4)])
            * size,
        )
        flat[wall] = 0.01 * size
        place = rng.uniform(-0.7, 0.7, 3) * half
        place[wall] = (half[wall] - flat[wall]) * (1.0 if rng.random() < 0.65 else -1.0)
        builder.add(Shape.BOX, flat, room @ _placed(place, 0.0), repeats=float(0.5 / flat.max()))
    scatter(
        builder,
        rng,
        int(rng.integers(2, 7)),
        (0.3 * size, 1.6 * size),
        (0.03 * size, 0.22 * size),
        0,
    )
    scatter(builder, rng, movers, (0.4 * size, 1.4 * size), (0.08 * size, 0.25 * size), movers)
    return np.asarray(
        room[:3, :3] @ (half * (rng.uniform(-0.6, 0.6), -0.8, rng.uniform(-0.6, 0.6))) + room[:3, 3]
    )


def fill_street(
    builder: SceneBuilder, rng: np.random.Generator, size: float, movers: int
) -> Float64:
    """Ground, sky, house fronts, poles and parked cars along the z axis; returns the lamp's
    position `[3]`."""
    ground = rng.uniform(0.15, 0.4) * size
    sky = np.array([25.0, 12.0, 25.0]) * size * rng.uniform(0.6, 1.5)
    builder.add(
        Shape.ROOM,
        sky,
        _placed(np.array([0.0, ground - sky[1] + 0.5 * size, 0.0]), 0.0),
        repeats=float(rng.uniform(0.005, 0.03) / size),
        plain=True,
    )
    floor = np.array([sky[0], 0.05 * size, sky[2]])
    builder.add(
        Shape.BOX,
        floor,
        _placed(np.array([0.0, ground + floor[1], 0.0]), 0.0),
        repeats=float(rng.uniform(0.15, 0.6) / size),
    )
    for side in (-1.0, 1.0):
        z = rng.uniform(-1.0, 1.0) * size
        for _ in range(int(rng.integers(2, 6))):
            house = rng.uniform((0.4, 0.5, 0.5), (1.5, 2.5, 2.0)) * size
            gap = rng.uniform(0.6, 2.5) * size
            pose = _placed(
                np.array([side * (gap + house[0]), ground - house[1], z + house[2]]),
                rng.normal(0, 0.05),
            )
            builder.add(Shape.BOX, house, pose, repeats=float(rng.uniform(0.2, 0.7) / size))
            z += 2 * house[2] + rng.uniform(0.0, 1.5) * size
    for _ in range(int(rng.integers(3, 9))):
        car = rng.uniform((0.1, 0.08, 0.15), (0.25, 0.25, 0.6)) * size
        place = np.array(
            [
                rng.choice((-1, 1)) * rng.uniform(0.3, 1.6) * size,
                ground - car[1],
                rng.uniform(0.5, 8.0) * size,
            ]
        )
        builder.add(Shape.BOX, car, _placed(place, rng.normal(0, 0.1)))
    for _ in range(int(rng.integers(2, 7))):
        pole = np.array([0.02, rng.uniform(0.4, 1.0), 0.02]) * size
        place = np.array(
            [
                rng.choice((-1, 1)) * rng.uniform(0.4, 1.2) * size,
                ground - pole[1],
                rng.uniform(0.8, 7.0) * size,
            ]
        )
        builder.add(Shape.BOX, pole, _placed(place, 0.0))
    for _ in range(movers):
        car = rng.uniform((0.12, 0.1, 0.2), (0.22, 0.2, 0.5)) * size
        place = np.array(
            [rng.uniform(-0.9, 0.9) * size, ground - car[1], rng.uniform(1.0, 5.0) * size]
        )
        velocity = (
            np.array([rng.normal(0, 0.02), 0.0, rng.uniform(-0.3, 0.3), 0.0, 0.0, 0.0]) * size
        )
        builder.add(Shape.BOX, car, _placed(place, 0.0), velocity=velocity)
    return np.array([rng.uniform(-5, 5), -10.0, rng.uniform(-5, 5)]) * size


def fill_clutter(
    builder: SceneBuilder, rng: np.random.Generator, size: float, movers: int
) -> Float64:
    """A table or floor full of things in front of the camera, in a wide room; returns the lamp's
    position `[3]`."""
    room = np.array([rng.uniform(2.0, 4.0), rng.uniform(1.2, 2.0), rng.uniform(2.0, 4.0)]) * size
    builder.add(
        Shape.ROOM,
        room,
        _placed(np.array([0.0, -0.2 * size, 0.8 * size]), rng.uniform(-0.6, 0.6)),
        repeats=float(rng.uniform(0.2, 0.6) / size),
        plain=bool(rng.random() < 0.35),
    )
    height = rng.uniform(0.25, 0.8) * size
    table = np.array([rng.uniform(0.6, 2.0), 0.04, rng.uniform(0.6, 2.0)]) * size
    builder.add(
        Shape.BOX,
        table,
        _placed(np.array([0.0, height + table[1], size]), rng.uniform(-0.7, 0.7)),
        repeats=float(rng.uniform(0.3, 1.0) / size),
    )
    for _ in range(int(rng.integers(6, 18))):
        extent = rng.uniform(0.04, 0.26, 3) * size
        place = np.array(
            [rng.normal(0, 0.4) * size, height - extent[1], size + rng.normal(0, 0.45) * size]
        )
        shape = Shape.ELLIPSOID if rng.random() < 0.3 else Shape.BOX
        builder.add(shape, extent, _placed(place, rng.uniform(-1.5, 1.5)))
    scatter(
        builder,
        rng,
        int(rng.integers(0, 4)),
        (0.5 * size, 1.6 * size),
        (0.03 * size, 0.18 * size),
        0,
    )
    scatter(builder, rng, movers, (0.5 * size, 1.3 * size), (0.06 * size, 0.2 * size), movers)
    return np.array([rng.uniform(-1, 1), -1.1, rng.uniform(0, 2)]) * size


def scatter(
    builder: SceneBuilder,
    rng: np.random.Generator,
    count: int,
    reach: tuple[float, float],
    extent: tuple[float, float],
    movers: int,
) -> None:
    """Boxes and ellipsoids in any orientation, floating in front of the start; the first `movers`
    of them fly."""
    for index in range(count):
        distance = rng.uniform(*reach)
        place = np.array(
            [rng.uniform(-0.6, 0.6) * distance, rng.uniform(-0.4, 0.4) * distance, distance]
        )
        pose = rigid(so3_exp(rng.normal(size=3)), place)
        half = rng.uniform(extent[0], extent[1], 3)
        velocity = (
            np.concatenate([rng.normal(size=3) * 0.08 * distance, rng.normal(size=3) * 0.15])
            if index < movers
            else None
        )
        builder.add(
            Shape.ELLIPSOID if rng.random() < 0.4 else Shape.BOX, half, pose, velocity=velocity
        )


def _placed(place: Float64, yaw: float) -> Float64:
    return rigid(so3_exp([0.0, yaw, 0.0]), place)
