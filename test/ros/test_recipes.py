"""The recipes for other people's nodes: their parameter names exist, and their frames and topics
are ours. That what we publish obeys their rules is in `test_frames_out.py` (`consumer.py`).

The names were read in the packages' own sources (`declare_parameter` and params/*.yaml):
robot_localization 3.8 (branch ros2), nav2_costmap_2d and nav2_lifecycle_manager of Humble, Jazzy
and Lyrical. Where those packages are installed, or ROS_SOURCES names a folder with their sources,
they are read again.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from flow3r_ros.config import NodeSettings, ObstacleSettings
from flow3r_ros.wire.outputs import TOPICS

ROOT = Path(__file__).resolve().parents[2]
EKF = set(
    [
        "frequency",
        "sensor_timeout",
        "two_d_mode",
        "publish_tf",
        "map_frame",
        "odom_frame",
        "base_link_frame",
        "world_frame",
        "odom0",
        "odom0_config",
        "odom0_queue_size",
    ]
)
COSTMAP = set(
    [
        "global_frame",
        "robot_base_frame",
        "rolling_window",
        "width",
        "height",
        "resolution",
        "robot_radius",
        "update_frequency",
        "publish_frequency",
        "transform_tolerance",
        "plugins",
    ]
)
VOXELS = set(
    [
        "plugin",
        "enabled",
        "origin_z",
        "z_resolution",
        "z_voxels",
        "max_obstacle_height",
        "publish_voxel_map",
        "observation_sources",
    ]
)
SOURCE = set(
    [
        "topic",
        "data_type",
        "marking",
        "clearing",
        "sensor_frame",
        "min_obstacle_height",
        "max_obstacle_height",
        "obstacle_max_range",
        "obstacle_min_range",
        "raytrace_max_range",
        "raytrace_min_range",
        "expected_update_rate",
    ]
)
INFLATION = {"plugin", "enabled", "cost_scaling_factor", "inflation_radius"}
MANAGER = {"autostart", "node_names", "bond_timeout"}
THEIRS = {
    "robot_localization": EKF,
    "nav2_costmap_2d": COSTMAP | VOXELS | SOURCE | INFLATION,
    "nav2_lifecycle_manager": MANAGER,
}


def recipe(name: str) -> dict[str, Any]:
    """A YAML file of `config/`."""
    tree: dict[str, Any] = yaml.safe_load((ROOT / "config" / name).read_text(encoding="utf-8"))
    return tree


def costmap() -> dict[str, Any]:
    """Parameters of the costmap's recipe."""
    found: dict[str, Any] = recipe("nav2_costmap.yaml")["local_costmap"]["local_costmap"]
    return dict(found["ros__parameters"])


def test_the_filter_fuses_the_twist_in_the_frame_that_the_node_publishes() -> None:
    settings = recipe("ekf.yaml")["ekf_filter_node"]["ros__parameters"]
    assert set(settings) == EKF
    assert settings["odom0"] == "/flow3r/odometry"
    used = settings["odom0_config"]
    assert len(used) == 15
    assert [index for index, on in enumerate(used) if on] == list(range(6, 12))
    assert settings["world_frame"] == settings["odom_frame"] == NodeSettings().odom_frame
    assert settings["map_frame"] == NodeSettings().map_frame
    assert "config/ekf.yaml" in (ROOT / "docs/robot.md").read_text(encoding="utf-8")


def test_the_costmap_marks_the_obstacles_that_the_node_publishes() -> None:
    settings = costmap()
    layers = {name: settings.pop(name) for name in settings["plugins"]}
    assert set(settings) == COSTMAP
    source = layers["obstacles"].pop("flow3r")
    assert layers["obstacles"]["observation_sources"] == "flow3r"
    assert (set(layers["obstacles"]), set(source), set(layers["inflation"])) == (
        VOXELS,
        SOURCE,
        INFLATION,
    )
    topic = source["topic"].replace("/flow3r", "~")
    assert TOPICS[topic].endswith(source["data_type"])
    ours = ObstacleSettings()
    assert source["obstacle_max_range"] >= ours.max_range
    assert source["min_obstacle_height"] <= ours.min_height
    assert source["max_obstacle_height"] >= ours.max_height
    assert settings["global_frame"] == NodeSettings().odom_frame
    assert set(recipe("nav2_costmap.yaml")["lifecycle_manager_costmap"]["ros__parameters"]) == (
        MANAGER
    )


@pytest.mark.parametrize("package", THEIRS)
def test_the_released_package_knows_every_name(package: str) -> None:
    text = "\n".join(file.read_text(errors="replace") for file in _files(package))
    if not text:
        pytest.skip(f"{package} is not installed, and ROS_SOURCES names no folder with it")
    assert not {name for name in THEIRS[package] if not re.search(rf"\b{name}\b", text)}


def _files(package: str) -> Iterator[Path]:
    prefixes = os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep)
    roots = [Path(prefix, "share", package) for prefix in prefixes if prefix]
    if "ROS_SOURCES" in os.environ:
        roots.append(Path(os.environ["ROS_SOURCES"], package))
    for root in roots:
        for kind in ("cpp", "yaml"):
            yield from root.rglob(f"*.{kind}")
