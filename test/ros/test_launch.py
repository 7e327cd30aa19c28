"""Launch files and viewer layouts: under the real launch where it is installed, and always for the
names they use."""

from __future__ import annotations

import ast
import json
import re
from importlib.util import find_spec, module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
import yaml

from flow3r_ros.cli.settings_docs import walk
from flow3r_ros.offline.bag_recorder import bag_topic
from flow3r_ros.wire.outputs import TOPICS
from test.ros.node_process import ROOT

FILES = ("robot", "replay", "view", "multi", "navigation")
SHARED = ROOT / "flow3r_ros" / "ros" / "launching.py"
OUTPUTS = {bag_topic(topic) for topic in TOPICS} | {"/diagnostics"}


@pytest.mark.parametrize("name", FILES)
def test_launch_file_builds_its_description(name):
    if find_spec("launch_ros") is None:
        pytest.skip(
            "launch and launch_ros are not on PyPI: this runs where ROS 2 is installed with apt"
        )
    path = ROOT / "launch" / f"{name}.launch.py"
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    assert len(module.generate_launch_description().entities) > 3


def _strings(path: Path) -> set[str]:
    return {
        node.value
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }


def _constant(name: str) -> dict[str, tuple[str, str]]:
    """A dictionary of `launching.py`, which only imports where launch is installed."""
    return next(
        ast.literal_eval(node.value)
        for node in ast.parse(SHARED.read_text()).body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == name
    )


def test_arguments_set_parameters_that_exist() -> None:
    settings = {f"{group}.{name}" for group, name, _ in walk()}
    given = {parameter for parameter, _ in _constant("PARAMETERS").values()}
    assert given <= settings | {"use_sim_time"}
    fixed = {
        text
        for name in FILES
        for text in _strings(ROOT / "launch" / f"{name}.launch.py")
        if re.fullmatch(r"(node|model|scale)\.[a-z_]+", text)
    }
    assert fixed == {"node.publish_tf", "scale.source"}
    assert fixed <= settings


def test_launch_files_open_files_that_exist() -> None:
    for path in (SHARED, *(ROOT / "launch" / f"{name}.launch.py" for name in FILES)):
        for text in _strings(path):
            if text.endswith((".rviz", ".xml", ".yaml")) and " " not in text:
                assert (ROOT / "config" / text).is_file(), text


def test_rviz_shows_topics_of_the_contract():
    config = yaml.safe_load((ROOT / "config" / "flow3r.rviz").read_text())
    shown = {
        display["Topic"]["Value"]: display["Topic"]
        for display in config["Visualization Manager"]["Displays"]
        if "Topic" in display
    }
    not_drawn = {
        "/flow3r/flow",
        "/flow3r/status",
        "/flow3r/depth/camera_info",
        "/tf",
        "/diagnostics",
    }
    assert set(shown) == OUTPUTS - not_drawn
    assert shown["/flow3r/map"]["Durability Policy"] == "Transient Local"
    assert config["Visualization Manager"]["Global Options"]["Fixed Frame"] == "odom"


def test_foxglove_layout_shows_topics_of_the_contract():
    layout = json.loads((ROOT / "config" / "flow3r.foxglove.json").read_text())
    topics = {
        text.split(".")[0]
        for text in _leaves(layout["configById"])
        if text.startswith(("/flow3r", "/diagnostics"))
    }
    assert topics <= OUTPUTS
    drawn = {bag_topic(topic) for topic in TOPICS if topic != "/tf"} - {"/flow3r/depth/camera_info"}
    assert drawn <= topics, "a topic that nothing shows"
    tabs = [tab["layout"] for tab in layout["configById"]["Tab!aside"]["tabs"]]
    panels = {text for text in _leaves([layout["layout"], tabs]) if "!" in text}
    assert panels == set(layout["configById"])


def _leaves(tree: Any) -> list[str]:
    if isinstance(tree, dict):
        return [text for key, value in tree.items() for text in [key, *_leaves(value)]]
    if isinstance(tree, list):
        return [text for value in tree for text in _leaves(value)]
    return [tree] if isinstance(tree, str) else []
