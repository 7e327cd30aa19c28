"""Clouds that the outputs make of estimates: points, the map, obstacles."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.config import NodeSettings, ObstacleSettings
from flow3r_ros.geometry.lie import se3_exp
from flow3r_ros.types import ScaleState
from flow3r_ros.wire.outputs import Outputs
from test.wire.estimates import (
    E_BASE_OPTICAL,
    HEIGHT,
    WIDTH,
    build,
    estimate,
)


def test_cloud_is_the_depth_back_projected() -> None:
    made = estimate(0, se3_exp([0.5, 0.1, -0.2, 0.1, 0.2, 0.3]))
    dtype = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")]
    cloud = build(Outputs(make, NodeSettings(), keep=lambda kept: ~kept.moving), made)["~/points"]
    points = np.frombuffer(cloud.data, dtype).reshape(HEIGHT, WIDTH)
    keep = ~made.moving & np.isfinite(made.depth)
    expected = made.points()
    for axis, name in enumerate("xyz"):
        np.testing.assert_array_equal(points[name][keep], expected[keep][:, axis])
        assert np.isnan(points[name][~keep]).all()
    color = points["rgb"][0, 0]
    assert (color >> 16, color >> 8 & 255, color & 255) == tuple(made.rgb[0, 0])
    moved = build(Outputs(make, NodeSettings(points_frame="odom")), made)["~/points"]
    assert moved.header.frame_id == "odom"
    points = np.frombuffer(moved.data, dtype).reshape(HEIGHT, WIDTH)
    world = expected @ made.T_odom_cam[:3, :3].T + made.T_odom_cam[:3, 3]
    np.testing.assert_allclose(points["x"], world[..., 2], rtol=1e-4, atol=1e-5)


def test_map_is_rare_and_in_odom() -> None:
    outputs = Outputs(make, NodeSettings(map_period=2.0))
    assert outputs.map_due(5)
    message = outputs.map_message(
        5, np.array([[0, 0, 1]], np.float32), np.zeros((1, 3), np.uint8), np.ones(1, np.float32)
    )
    assert np.frombuffer(message.data, "<f4")[:3] == pytest.approx((1.0, 0.0, 0.0))
    assert not outputs.map_due(1_000_000_000)
    assert outputs.map_due(2_000_000_005)
    assert outputs.map_due(0), "time ran backwards"
    empty = outputs.map_message(
        9, np.empty((0, 3), np.float32), np.empty((0, 3), np.uint8), np.empty(0, np.float32)
    )
    assert empty.width == 0


def points_of(cloud: Any) -> np.ndarray:
    """x y z `[n, 3]` of a cloud."""
    return np.frombuffer(cloud.data, np.float32).reshape(-1, cloud.point_step // 4)[:, :3]


def test_obstacles_are_what_the_base_would_run_into() -> None:
    limits = ObstacleSettings(min_height=0.2, max_height=1.5, max_range=3.0, min_confidence=0.4)
    settings = NodeSettings(base_frame="base")
    outputs = Outputs(make, settings, T_base_optical=E_BASE_OPTICAL, obstacles=limits)
    seen = estimate(3)
    cloud = build(outputs, seen)["~/obstacles"]
    assert cloud.header.frame_id == "base"
    everything = seen.points().reshape(-1, 3) @ E_BASE_OPTICAL[:3, :3].T + E_BASE_OPTICAL[:3, 3]
    wanted = everything[
        (seen.confidence.reshape(-1) >= 0.4)
        & (everything[:, 2] >= 0.2)
        & (everything[:, 2] <= 1.5)
        & (np.hypot(everything[:, 0], everything[:, 1]) <= 3.0)
    ]
    assert 5 < len(wanted) < len(everything) / 2
    np.testing.assert_allclose(points_of(cloud), wanted, rtol=1e-5, atol=1e-5)
    relative = replace(seen, scale_state=ScaleState.RELATIVE)
    assert "~/obstacles" not in build(outputs, relative), "a unit that is no metre"
