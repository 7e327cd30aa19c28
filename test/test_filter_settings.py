"""The configuration for robot_localization fuses what docs/robot.md says it does."""

from __future__ import annotations

from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]


def test_the_filter_fuses_the_twist_alone() -> None:
    tree = yaml.safe_load((ROOT / "config" / "ekf.yaml").read_text(encoding="utf-8"))
    settings = tree["ekf_filter_node"]["ros__parameters"]
    assert settings["odom0"] == "/flow3r/odometry"
    config = settings["odom0_config"]
    assert len(config) == 15, "x y z, roll pitch yaw, their rates, accelerations"
    assert config == [False] * 6 + [True] * 6 + [False] * 3
    assert settings["world_frame"] == settings["odom_frame"], "continuous data"
    assert "odom0_differential" not in settings, "it has no effect on a twist"
    page = (ROOT / "docs" / "robot.md").read_text(encoding="utf-8")
    assert "config/ekf.yaml" in page
    assert "odom0_differential" in page
