"""Each source of the scale: what it measures, how it bears outliers, and when its state may call
itself metric."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flow3r_ros.config import ScaleSettings
from flow3r_ros.geometry.camera import rays
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.odometry.scale import MAX_SIGMA, MIN_RATIOS, Scale, ground_height
from flow3r_ros.types import Camera, Float32, Float64, ScaleState

CAMERA = Camera(160, 120, 130.0, 130.0, 79.5, 59.5)
TENTH = 100_000_000


def at(x: float, y: float = 0.0, z: float = 0.0) -> Float64:
    return rigid(np.eye(3), [x, y, z])


def drive(scale: Scale, ratios: list[float], step: float = 0.1) -> None:
    """A straight visual way in steps of `step` while the wheels go `ratio` times as far; both see
    every tenth of a second."""
    wheel = 0.0
    for index, ratio in enumerate([0.0, *ratios]):
        wheel += ratio * step
        scale.add_odometry(index * TENTH, at(wheel))
        scale.observe_pose(index * TENTH, at(0.0, 0.0, index * step), median_depth=1.0)


def floor(height: float, pitch: float = 0.0, wall: float = 5.0) -> Float32:
    """Depth `[120, 160]` of a floor `height` below a camera looking `pitch` radians down, closed
    off by a wall."""
    grid = rays(CAMERA).astype(np.float64)
    directions = np.concatenate([grid, np.ones_like(grid[..., :1])], axis=-1)
    down = so3_exp([pitch, 0.0, 0.0]) @ np.array([0.0, 1.0, 0.0])
    fall = directions @ down
    with np.errstate(divide="ignore"):
        return np.asarray(
            np.minimum(np.where(fall > 1e-6, height / fall, np.inf), wall), np.float32
        )


def wheels() -> Scale:
    return Scale(ScaleSettings(source="odometry"))


def test_without_a_source_the_scale_stays_relative() -> None:
    scale = Scale(ScaleSettings())
    drive(scale, [3.0] * 20)
    scale.observe_ground(floor(1.0), CAMERA)
    assert (scale.factor, scale.state, scale.sigma) == (1.0, ScaleState.RELATIVE, math.inf)


def test_a_fixed_factor_is_anchored_and_its_doubt_grows() -> None:
    scale = Scale(ScaleSettings(source="fixed", factor=2.5))
    assert (scale.factor, scale.state) == (2.5, ScaleState.ANCHORED)
    np.testing.assert_allclose(scale.output_pose(at(1.0, 2.0, 3.0))[:3, 3], [2.5, 5.0, 7.5])
    begin = scale.sigma
    for _ in range(100):
        scale.keyframe_added()
    assert scale.state is ScaleState.ANCHORED
    assert begin < scale.sigma < 0.03
    scale.reset()
    assert scale.sigma == begin


def test_wheels_make_it_metric_after_enough_steps() -> None:
    scale = wheels()
    drive(scale, [2.0] * (MIN_RATIOS - 1))
    assert scale.state is ScaleState.RELATIVE
    scale = wheels()
    drive(scale, [2.0] * MIN_RATIOS)
    assert scale.state is ScaleState.METRIC
    assert scale.factor == pytest.approx(2.0, rel=1e-9)
    assert scale.sigma < 0.01


def test_slipping_wheels_are_outvoted() -> None:
    scale = wheels()
    random = np.random.default_rng(0)
    drive(
        scale,
        [
            float(np.exp(random.normal(0, 0.02))) * (2.0 if index % 4 else 9.0)
            for index in range(40)
        ],
    )
    assert scale.state is ScaleState.METRIC
    assert scale.factor == pytest.approx(2.0, rel=0.02)
    assert scale.sigma < 0.02


def test_wheels_that_contradict_themselves_are_not_believed() -> None:
    scale = wheels()
    drive(scale, [0.2, 1.0, 5.0, 25.0, 0.04, 3.0, 0.3])
    assert scale.state is ScaleState.RELATIVE
    assert scale.factor == 1.0


def test_what_says_nothing_is_not_a_measurement() -> None:
    standing = wheels()
    drive(standing, [0.0] * 20)
    assert standing.state is ScaleState.RELATIVE
    creeping = wheels()
    drive(creeping, [2.0] * 20, step=0.001)
    assert creeping.state is ScaleState.RELATIVE
    torn = wheels()
    for index in range(20):
        torn.add_odometry(index * 10 * TENTH, at(2.0 * index))
        torn.observe_pose(index * 10 * TENTH + TENTH, at(0.1 * index), median_depth=1.0)
    assert torn.state is ScaleState.RELATIVE, "poses a second apart must not be interpolated"


def test_wheel_poses_are_interpolated_to_the_picture() -> None:
    scale = wheels()
    for index in range(60):
        scale.add_odometry(index * 30_000_000, at(0.06 * index))
    for index in range(16):
        scale.observe_pose(index * TENTH, at(0.1 * index), median_depth=1.0)
    assert scale.factor == pytest.approx(2.0, rel=1e-6)


def test_disordered_and_broken_wheel_poses_are_ignored() -> None:
    scale = wheels()
    scale.add_odometry(TENTH, at(1.0))
    scale.add_odometry(0, at(50.0))
    scale.add_odometry(TENTH, at(50.0))
    scale.add_odometry(2 * TENTH, np.full((4, 4), np.nan))
    drive(scale, [2.0] * 10)
    assert scale.factor == pytest.approx(2.0, rel=1e-9)


def test_a_gap_in_the_visual_way_is_not_compared_across() -> None:
    scale = wheels()
    drive(scale, [2.0] * MIN_RATIOS)
    scale.restart_span(10**12)
    last = MIN_RATIOS + 1
    scale.add_odometry(last * TENTH, at(100.0))
    scale.observe_pose(last * TENTH, at(7.0), median_depth=1.0)
    assert scale.factor == pytest.approx(2.0, rel=1e-9)
    assert len(scale._log_ratios) == MIN_RATIOS


def test_metric_falls_back_to_anchored_when_nothing_measures_any_more() -> None:
    scale = wheels()
    drive(scale, [2.0] * 10)
    fresh = scale.sigma
    for _ in range(10 * MIN_RATIOS + 1):
        scale.keyframe_added()
    assert scale.state is ScaleState.ANCHORED
    assert scale.factor == pytest.approx(2.0)
    assert fresh < scale.sigma < MAX_SIGMA
    scale.reset()
    drive(scale, [3.0] * 10)
    assert scale.state is ScaleState.METRIC
    assert scale.factor == pytest.approx(3.0)


def test_a_new_factor_never_tears_the_trajectory() -> None:
    scale = wheels()
    before = scale.output_pose(at(1.0))[0, 3]
    drive(scale, [4.0] * 10)
    assert scale.output_pose(at(1.0))[0, 3] == before
    assert scale.output_pose(at(1.5))[0, 3] == pytest.approx(before + 4.0 * 0.5)


@pytest.mark.parametrize("pitch", [-0.1, 0.0, 0.3])
def test_the_height_over_ground_is_found(pitch: float) -> None:
    assert ground_height(floor(0.6, pitch), CAMERA) == pytest.approx(0.6, rel=0.01)


def test_the_camera_height_makes_it_metric_and_bears_outliers() -> None:
    scale = Scale(ScaleSettings(source="camera_height", camera_height=1.5))
    random = np.random.default_rng(0)
    for index in range(10):
        depth = floor(0.5 if index % 4 else 1.7)
        wrong = random.random(depth.shape) < 0.3
        depth[wrong] *= random.uniform(0.3, 3.0, int(wrong.sum())).astype(np.float32)
        depth[:, :20] = np.nan
        scale.observe_ground(depth, CAMERA)
    assert scale.state is ScaleState.METRIC
    assert scale.factor == pytest.approx(3.0, rel=0.02)


def test_where_there_is_no_ground_there_is_no_height() -> None:
    wall = np.full((120, 160), 2.0, np.float32)
    assert ground_height(wall, CAMERA) is None
    assert ground_height(np.full((120, 160), np.nan, np.float32), CAMERA) is None
    rubble = np.random.default_rng(0).uniform(0.5, 8.0, (120, 160)).astype(np.float32)
    assert ground_height(rubble, CAMERA) is None
    scale = Scale(ScaleSettings(source="camera_height"))
    for _ in range(10):
        scale.observe_ground(wall, CAMERA)
    assert scale.state is ScaleState.RELATIVE
