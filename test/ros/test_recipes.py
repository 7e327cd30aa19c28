"""The recipes for other people's nodes: their parameter names exist, and their frames and topics
are ours. That what we publish obeys their rules is in `test_frames_out.py` (`consumer.py`).

The names and types were compared with the packages' own sources: robot_localization 3.5.2
(humble-devel) and 3.6.0 (branch ros2), nav2_costmap_2d and nav2_lifecycle_manager 1.1.20 (humble),
1.3.13 (jazzy) and 1.5.1 (lyrical). Where ROS_SOURCES names a folder with their sources, they are
read again.
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
    found: dict[str, Any] = recipe("nav2_costmap.yaml")["costmap"]["costmap"]
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
def test_the_released_package_declares_every_name_with_our_type(package: str) -> None:
    text = "\n".join(file.read_text(errors="replace") for file in _files(package))
    if not text:
        pytest.skip(f"ROS_SOURCES names no folder with the sources of {package}")
    declared = defaults_of(text)
    together = {name for name, piece in PUT_TOGETHER.items() if f'"{piece}"' in text}
    assert not THEIRS[package] - declared.keys() - together
    wrong = {
        name: (value, kinds)
        for name, value in _values_of(package)
        if (kinds := declared.get(name, set()) - {""}) and type(value).__name__ not in kinds
    }
    assert not wrong, "ROS takes no int for a double: (ours, their defaults)"


PUT_TOGETHER = {"odom0": "odom", "odom0_config": "_config", "odom0_queue_size": "_queue_size"}
"""names that robot_localization makes of the sensor's name and an ending"""
DECLARING = ("declare", "get_parameter", "getParameter", "loadParam")


def defaults_of(text: str) -> dict[str, set[str]]:
    """Names of the parameters that C++ sources declare or read, with the kinds of their defaults
    (bool, int, float, str; empty where it is no literal)."""
    found: dict[str, set[str]] = {}
    for statement in text.split(";"):
        if not any(word in statement for word in DECLARING):
            continue
        default = r"(?:\)\s*)?(?:,\s*(?:rclcpp::ParameterValue\()?(?:std::string\()?([^,)]*))?"
        for name, value in re.findall(r'"[._]*(\w+)"\s*' + default, statement):
            found.setdefault(name, set()).add(kind_of_literal(value.strip()))
    return found


def kind_of_literal(text: str) -> str:
    """Kind of a literal of C++."""
    if text in ("true", "false"):
        return "bool"
    if re.fullmatch(r"-?\d+", text):
        return "int"
    if re.fullmatch(r"-?\d*\.\d*f?", text):
        return "float"
    return "str" if text.startswith('"') else ""


def test_defaults_are_found_in_the_ways_that_the_packages_write_them() -> None:
    text = """
      declareParameter(source + "." + "rate", rclcpp::ParameterValue(0.0));
      two_d_mode_ = this->declare_parameter("two_d_mode", false);
      width_ = node->declare_or_get_parameter(name_ + "." + "width", 5);
      this->declare_parameter(topic + std::string("_queue_size"), 10);
      if (name == "never") { return; }
    """
    expected = {"rate": {"float"}, "two_d_mode": {"bool"}, "width": {"int"}, "queue_size": {"int"}}
    assert defaults_of(text) == expected


def _values_of(package: str) -> Iterator[tuple[str, Any]]:
    """Our parameters for a package, the groups among them opened."""
    files = {
        "robot_localization": ("ekf.yaml", "ekf_filter_node"),
        "nav2_lifecycle_manager": ("nav2_costmap.yaml", "lifecycle_manager_costmap"),
    }
    file, node = files.get(package, ("", ""))
    yield from _leaves(recipe(file)[node]["ros__parameters"] if file else costmap())


def _leaves(tree: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _leaves(value)
        elif not isinstance(value, list):
            yield name, value


def _files(package: str) -> Iterator[Path]:
    if "ROS_SOURCES" not in os.environ:
        return
    helpers = ("nav2_util", "nav2_ros_common") if package.startswith("nav2") else ()
    for name in (package, *helpers):
        for kind in ("cpp", "hpp"):
            yield from Path(os.environ["ROS_SOURCES"], name).rglob(f"*.{kind}")
