"""Places that look the same and are not: a wall of the scene factory whose texture repeats."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.bench.memory import there_and_back
from flow3r_ros.config import SlamSettings
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert, rigid
from flow3r_ros.odometry.corners import Reference
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.odometry.input import view_of
from flow3r_ros.odometry.relocalisation import describe
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.training.scenes.layouts import SceneBuilder
from flow3r_ros.training.scenes.shapes import Scene, Shape, cast_image, paint
from flow3r_ros.training.scenes.textures import texture_atlas
from flow3r_ros.types import Float64, Frame
from test.geometry.views import CAMERA
from test.odometry.plane import reference_at

pytest.importorskip("gtsam")
MOMENTS, STEP, PERIOD_NS = 13, 0.5, 3_000_000_000
REPEAT, AWAY = 2.0, 2.0
"""metres after which the wall looks exactly the same, and to the wall"""


def way(index: int) -> Float64:
    """Along the wall, and back."""
    return rigid(np.eye(3), [STEP * there_and_back(index, MOMENTS), 0.0, 0.0])


def repeated_wall() -> Scene:
    atlas, rng = texture_atlas("photographs"), np.random.default_rng(5)
    cameras = np.stack([way(index) for index in range(MOMENTS)])
    builder = SceneBuilder(rng, atlas, cameras, np.zeros(MOMENTS), 0.2)
    half = np.array([20 * REPEAT, 4.0, 0.1])
    place = rigid(np.eye(3), [0.0, 0.0, AWAY + half[2]])
    builder.add(Shape.BOX, half, place, repeats=1.0 / REPEAT)
    return builder.build(np.array([0.0, 0.0, -1e4]))


def keyframe(scene: Scene, index: int) -> Finished:
    """What the odometry would tell, without an error."""
    moment, pose = there_and_back(index, MOMENTS), way(index)
    depth, primitive = cast_image(scene, moment, pose, CAMERA)
    rgb = paint(scene, moment, pose, CAMERA, depth, primitive, texture_atlas("photographs"))
    view = view_of(Frame(index, index * PERIOD_NS, rgb, CAMERA), CAMERA.width)
    inverse = 1.0 / depth[::3, ::3]
    moving, nothing = np.zeros(inverse.shape, np.bool_), reference_at(0)
    reference = Reference(
        view, pose, DepthMap(inverse, 0.02 * inverse), moving, nothing.ids, nothing.pixels,
        nothing.points,
    )  # fmt: skip
    return Finished(reference, describe(view), {}, 0)


def test_a_texture_that_repeats_is_one_place_only() -> None:
    """Pictures 2, 4 and 6 m apart are the same; loops are closed where the camera truly was."""
    scene = repeated_wall()
    first, same = (keyframe(scene, index).reference.view.gray for index in (0, int(REPEAT / STEP)))
    assert np.mean(np.abs(first.astype(float) - same)) < 2.0
    with Mapper(SlamSettings(enabled=True)) as mapper:
        for index in range(2 * MOMENTS - 2):
            mapper.take(keyframe(scene, index))
        state = mapper.finish()
    assert state.refused["contradicts the map"] >= 1
    assert state.closed >= 1
    for loop in state.loops:
        apart = invert(way(loop[0])) @ way(loop[1])
        assert np.linalg.norm(apart[:3, 3]) < 0.75 * REPEAT
    for index, located in state.located.items():
        assert np.linalg.norm(located.S_map_cam[:3, 3] - way(index)[:3, 3]) < 0.1
