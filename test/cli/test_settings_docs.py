"""The settings tree refuses what it should, reads what it wrote, and its documents are up to
date."""

from __future__ import annotations

from pathlib import Path

import pytest

from flow3r_ros.cli.settings_docs import ROOT, render_markdown, render_yaml, walk
from flow3r_ros.config import Config, load_config
from flow3r_ros.errors import ConfigError


def test_every_setting_is_described() -> None:
    assert all(field.description for _, _, field in walk())


@pytest.mark.parametrize(
    ("file", "rendered"),
    [("docs/parameters.md", render_markdown()), ("config/node.yaml", render_yaml())],
)
def test_documents_say_what_the_code_says(file: str, rendered: str) -> None:
    assert (ROOT / file).read_text(encoding="utf-8") == rendered, (
        "run: python -m flow3r_ros.cli.settings_docs"
    )


def test_the_documented_defaults_are_the_defaults() -> None:
    assert load_config(ROOT / "config/node.yaml") == Config()


def test_the_official_model_is_left_to_its_manifest() -> None:
    config = load_config(ROOT / "config/official.yaml")
    assert config.model.name == "flow3r_large"
    assert (config.engine.window, config.tracking.depth_width) == (0, 0)


def test_overrides_reach_the_leaf() -> None:
    assert load_config(overrides={"engine.window": 6}).engine.window == 6


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("engine: {windw: 4}", "engine.windw"),
        ("engine: {window: 1}", "engine.window"),
        ("tracking: {depth_width: 60}", "tracking.depth_width"),
        ("model: {device: gpu0}", "model.device"),
        ("scale: {factor: .nan}", "scale.factor"),
        ("- 1", "mapping"),
        ("a: [", "YAML"),
    ],
)
def test_wrong_settings_are_named(tmp_path: Path, text: str, names: str) -> None:
    path = tmp_path / "wrong.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=names) as caught:
        load_config(path)
    assert "\n" not in str(caught.value)
    assert "wrong.yaml" in str(caught.value)
