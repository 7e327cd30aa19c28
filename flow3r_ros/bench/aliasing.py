"""Pictures that deceive whoever looks for places seen before: what looks the same and is not.

A corridor whose every stretch is the one before, a wall whose texture repeats, a room and then its
mirror image. The way is continuous (but for the mirror), so that odometry knows better.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np

from flow3r_ros.bench.run import CLIP
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.geometry.lie import invert, rigid, so3_exp
from flow3r_ros.training.scenes.layouts import SceneBuilder
from flow3r_ros.training.scenes.shapes import Scene, Shape, cast_image, paint
from flow3r_ros.training.scenes.textures import texture_atlas
from flow3r_ros.types import Camera, Float64, Frame

PERIOD_NS = 200_000_000
"""between pictures: the same place comes again only after the 20 s that are not searched"""
FRAMES = 220
CAMERA = Camera(480, 360, 300.0, 300.0, 239.5, 179.5)
REPEAT = 4.0
"""metres after which everything looks the same again; a tile of a texture is half as long"""
BOXES = ((-0.85, 1.0, 0.2, 0.3), (0.85, 2.6, 0.25, 0.2))
"""x, z, half width (and depth) and half height of the boxes of a stretch of corridor, metres"""
STRETCHES = 8
TURN = 2.0 * np.pi / REPEAT
"""rad a metre: the camera sways alike in every stretch"""
AFTER_NS = 30_000_000_000
"""between a clip and its mirror image"""


class Case(ABC):
    """Pictures with the true poses of those that lie in one world."""

    name: str

    @abstractmethod
    def frames(self) -> Iterator[Frame]:
        """The pictures, in order."""

    @abstractmethod
    def poses(self) -> dict[int, Float64]:
        """True poses `[4, 4]` by frame id; a frame without one lies in another world."""


class Drive(Case):
    """A way through a scene of the factory."""

    step: float
    """metres a picture"""
    light = np.array([0.0, -1e4, 0.0])
    """far off, so that it shines on everything alike"""

    def frames(self) -> Iterator[Frame]:
        """Rendered one after the other."""
        for index in range(FRAMES):
            yield self.frame(index)

    def frame(self, index: int) -> Frame:
        """One of them, rendered."""
        here = invert(self._way[0]) @ self._way[index]
        depth, primitive = cast_image(self._scene, index, here, CAMERA)
        atlas = texture_atlas("photographs")
        rgb = paint(self._scene, index, here, CAMERA, depth, primitive, atlas)
        return Frame(index, index * PERIOD_NS, rgb, CAMERA)

    def poses(self) -> dict[int, Float64]:
        """Every frame's."""
        return dict(enumerate(self._way))

    @cached_property
    def _way(self) -> Float64:
        return np.stack([self.pose(self.step * index) for index in range(FRAMES)])

    @cached_property
    def _scene(self) -> Scene:
        rng, still = np.random.default_rng(5), np.zeros(FRAMES)
        builder = SceneBuilder(rng, texture_atlas("photographs"), self._way, still, 0.2)
        self.build(builder)
        return self.alike(builder.build(self.light))

    @abstractmethod
    def pose(self, way: float) -> Float64:
        """Pose `[4, 4]` after so many metres."""

    @abstractmethod
    def build(self, builder: SceneBuilder) -> None:
        """Everything there is to see."""

    def alike(self, scene: Scene) -> Scene:
        """The scene with everything that is to look the same looking the same."""
        return scene


class TwinCorridor(Drive):
    """Floor, walls and boxes that come again every `REPEAT` metres."""

    name, step = "the same corridor again and again", 0.05

    def pose(self, way: float) -> Float64:
        """Forward, looking 8 degrees down."""
        sway = 0.1 * np.sin(TURN * way)
        return rigid(so3_exp([0.0, sway, 0.0]) @ so3_exp([-0.14, 0.0, 0.0]), [sway, 0.0, way])

    def build(self, builder: SceneBuilder) -> None:
        """One long room with boxes."""
        half = np.array([1.2, 1.3, 40.0])
        builder.add(Shape.ROOM, half, rigid(np.eye(3), [0.0, -0.7, 36.0]), repeats=2.0 / REPEAT)
        for stretch in range(STRETCHES):
            for x, z, side, tall in BOXES:
                place = rigid(np.eye(3), [x, 0.6 - tall, z + stretch * REPEAT])
                builder.add(Shape.BOX, np.array([side, tall, side]), place, repeats=1.2)

    def alike(self, scene: Scene) -> Scene:
        """The boxes of all stretches look like those of the first."""
        like = np.r_[0, np.tile(1 + np.arange(len(BOXES)), STRETCHES)]
        looks = ("tile", "offset", "gain", "bias")
        return replace(scene, **{name: getattr(scene, name)[like] for name in looks})


class RepeatedWall(Drive):
    """Sideways along a wall that shows one texture again and again."""

    name, step = "a texture that repeats", 0.05
    light = np.array([0.0, 0.0, -1e4])

    def pose(self, way: float) -> Float64:
        """Forward, looking 8 degrees down."""
        sway = 0.15 * np.sin(TURN * way)
        return rigid(so3_exp([0.0, sway, 0.0]), [way, sway, 0.0])

    def build(self, builder: SceneBuilder) -> None:
        """The wall alone."""
        place = rigid(np.eye(3), [0.0, 0.0, 2.1])
        builder.add(Shape.BOX, np.array([40.0, 5.0, 0.1]), place, repeats=2.0 / REPEAT)


class Mirrored(Case):
    """The bundled clip, and after a while its mirror image: another room that looks alike."""

    name = "a room and its mirror image"

    def frames(self) -> Iterator[Frame]:
        """The clip, then its mirror image."""
        with open_source(CLIP) as source:
            seen = list(source)
        yield from seen
        begins = seen[-1].stamp_ns - seen[0].stamp_ns + AFTER_NS
        for frame in seen:
            rgb = np.ascontiguousarray(frame.rgb[:, ::-1])
            yield replace(frame, id=frame.id + len(seen), stamp_ns=frame.stamp_ns + begins, rgb=rgb)

    def poses(self) -> dict[int, Float64]:
        """Of the clip; they judge nothing but that a loop leaves it."""
        with open_source(CLIP) as source:
            return {frame.id: np.eye(4) for frame in source}


CASES: Sequence[Case] = (TwinCorridor(), RepeatedWall(), Mirrored())
