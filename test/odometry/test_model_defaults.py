"""What is left to the model comes from its manifest: the window it was trained on, the width that
its resolution is worth."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flow3r_ros.config import Config, ModelSettings, load_config
from flow3r_ros.network.runner import open_predictor
from flow3r_ros.odometry.model_defaults import LEAST_DEPTH_WIDTH, fitted_to
from flow3r_ros.offline.run import run_to_folder
from test.network.factories import tiny_folder
from test.odometry.plane import Network, frames_of, settings, stepped
from test.offline.factory import clip_folder, small_clip


@pytest.fixture
def official_shaped(tmp_path: Path) -> Path:
    """A tiny network of the official shape (no evidence) whose manifest says window 6, 574x434."""
    path = tiny_folder(tmp_path / "official_shaped").path
    manifest = yaml.safe_load((path / "manifest.yaml").read_text())
    manifest["input"] |= {"resolution": [574, 434], "pixels": 255000, "window": 6}
    (path / "manifest.yaml").write_text(yaml.safe_dump(manifest))
    return path


def test_a_run_takes_window_and_resolution_from_the_manifest(
    official_shaped: Path, tmp_path: Path
) -> None:
    clip = clip_folder(tmp_path / "clip", small_clip(3))
    config = load_config(None, {"model.name": str(official_shaped), "model.device": "cpu"})
    run_to_folder(clip, tmp_path / "out", config, open_predictor, quiet=True)
    used = yaml.safe_load((tmp_path / "out" / "run.yaml").read_text())
    used = used.get("config", used)
    assert used["engine"]["window"] == 6
    assert used["tracking"]["depth_width"] == 574
    assert config.engine.window == 0, "what the user gave stays as it was"


def test_what_is_said_stands(official_shaped: Path) -> None:
    runner = open_predictor(ModelSettings(name=str(official_shaped), device="cpu"))
    said = load_config(None, {"engine.window": 3, "tracking.depth_width": 224})
    assert fitted_to(runner, said) == said


def test_a_coarse_network_does_not_make_depth_coarse() -> None:
    fitted = fitted_to(open_predictor(ModelSettings(device="cpu")), Config())
    assert (fitted.engine.window, fitted.tracking.depth_width) == (4, LEAST_DEPTH_WIDTH)


def test_live_settings_stay_the_same_objects() -> None:
    config = Config()
    fitted = fitted_to(Network([0]), config)
    config.depth.min_confidence = 0.5
    assert fitted.depth.min_confidence == 0.5


def test_windows_have_as_many_keyframes_as_the_model_says() -> None:
    network = Network(range(90))
    network.frames_per_window = 6
    estimates, _ = stepped(network, frames_of(range(90)), settings(engine__keyframe_distance=0.03))
    assert max(len(each.window) for each in estimates) == 6
