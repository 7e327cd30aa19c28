"""Settings that contradict each other are refused with both names and the cure."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from flow3r_ros.config import Config, load_config
from flow3r_ros.errors import ConfigError

CONTRADICTIONS: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    ({"obstacles.min_height": 2.5}, ("obstacles.min_height (2.5)", "obstacles.max_height (2.0)")),
    ({"obstacles.max_height": 0.1}, ("obstacles.min_height (0.1)", "obstacles.max_height (0.1)")),
    ({"node.age_error": 0.4}, ("node.age_warn (0.5)", "node.age_error (0.4)")),
    ({"node.drop_share_warn": 0.9}, ("node.drop_share_warn (0.9)", "node.drop_share_error (0.8)")),
    (
        {"engine.window": 40, "engine.keyframes": 20},
        ("engine.window (40)", "engine.keyframes (20)"),
    ),
    ({"slam.map": "somewhere"}, ("slam.map", "slam.enabled")),
    ({"slam.enabled": True, "slam.mode": "localisation"}, ("slam.mode", "slam.map")),
    ({"node.base_frame": "odom"}, ("node.odom_frame", "node.base_frame", "'odom'")),
    ({"node.camera_frame": "odom"}, ("node.odom_frame", "node.camera_frame", "'odom'")),
    ({"slam.enabled": True, "node.odom_frame": "map"}, ("node.odom_frame", "node.map_frame")),
    ({"slam.enabled": True, "node.base_frame": "map"}, ("node.map_frame", "node.base_frame")),
    ({"slam.enabled": True, "node.invert_tf": True}, ("node.invert_tf", "slam.enabled")),
]
AGREED: list[dict[str, Any]] = [
    {"obstacles.min_height": -0.5, "obstacles.max_height": -0.1},
    {"node.age_warn": 3.0, "node.age_error": 4.0},
    {"engine.window": 20, "engine.keyframes": 20},
    {"node.odom_frame": "map"},
    {"node.base_frame": "cam", "node.camera_frame": "cam"},
    {"slam.enabled": True, "slam.map": "somewhere", "slam.mode": "localisation"},
    {"node.invert_tf": True},
    {"slam.enabled": True, "node.invert_tf": True, "node.publish_map_tf": False},
]


@pytest.mark.parametrize(("settings", "words"), CONTRADICTIONS)
def test_a_contradiction_names_both_settings(
    settings: dict[str, Any], words: tuple[str, ...]
) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(overrides=settings)
    said = str(caught.value)
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert "Value error" not in said


@pytest.mark.parametrize("settings", AGREED)
def test_settings_in_their_order_are_taken(settings: dict[str, Any]) -> None:
    config = load_config(overrides=settings)
    for dotted, value in settings.items():
        group, name = dotted.split(".")
        assert getattr(getattr(config, group), name) == value


def test_a_tree_made_in_python_is_looked_at_as_well() -> None:
    with pytest.raises(ValidationError, match=r"obstacles\.max_height"):
        Config.model_validate({"obstacles": {"min_height": 2.0}})
