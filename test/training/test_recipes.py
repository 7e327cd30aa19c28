"""The bundled YAML files: all of them valid, and the one for the large model really trains, with a
small model in its place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from typer.testing import CliRunner

from flow3r_ros.cli.main import app
from flow3r_ros.network import Flow3r
from flow3r_ros.network.catalog import InputSpec, Manifest
from flow3r_ros.network.checkpoint import save_model_folder
from flow3r_ros.network.config import (
    DecoderConfig,
    EncoderConfig,
    Flow3rConfig,
    FlowHeadConfig,
    HeadDecoderConfig,
)
from flow3r_ros.training.train_config import load_train_settings
from test.training.clip_factory import scene, write_images

CONFIGS = Path(__file__).resolve().parents[2] / "config" / "train"


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.yaml")), ids=lambda path: path.name)
def test_every_bundled_configuration_is_valid(path):
    assert load_train_settings(path).steps > 0


@pytest.fixture
def like_the_large(tmp_path) -> Path:
    """A tiny network of the official kind: neither evidence nor a convolutional embedding."""
    torch.manual_seed(0)
    head = HeadDecoderConfig(width=32, blocks=4, heads=2, out=32)
    architecture = Flow3rConfig(
        name="small_official",
        encoder=EncoderConfig(width=32, blocks=1, heads=2, image_size=56),
        decoder=DecoderConfig(width=32, blocks=2, heads=2),
        point_decoder=head,
        conf_decoder=head,
        camera_decoder=head,
        flow_head=FlowHeadConfig(features=8, level_channels=(8, 8, 8, 8)),
    )
    folder = tmp_path / "small_official"
    manifest = Manifest(
        name="small_official",
        source="test",
        license="research only",
        parameters=0,
        input=InputSpec(resolution=(84, 56)),
    )
    save_model_folder(folder, Flow3r(architecture), manifest)
    return folder


def test_the_large_recipe_trains_adapters_and_exports_an_ordinary_model(tmp_path, like_the_large):
    tree = yaml.safe_load((CONFIGS / "finetune_large.yaml").read_text(encoding="utf-8"))
    tree |= {
        "start_from": str(like_the_large),
        "steps": 3,
        "checkpoint_every": 3,
        "validate_every": 0,
        "validation_clips": 1,
    }
    tree["data"] |= {"grids": [[84, 56]], "held_out_share": 0.0}
    tree["data"]["labels"] |= {"strides": [1]}
    tree["adapters"] |= {"rank": 2}
    tree["optimisation"] |= {"learning_rate": 0.03, "warmup_steps": 1}
    config = tmp_path / "large.yaml"
    config.write_text(yaml.safe_dump(tree), encoding="utf-8")
    recordings = [
        write_images(tmp_path / name, scene(seed, frames=6)) for seed, name in ((1, "a"), (2, "b"))
    ]
    arguments = [
        "train",
        "--config",
        str(config),
        "--output",
        str(tmp_path / "run"),
        "--data",
        *map(str, recordings),
    ]
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    before, after = (
        load_file(folder / "model.safetensors")
        for folder in (like_the_large, tmp_path / "run" / "model")
    )
    assert before.keys() == after.keys()
    changed = {
        name for name in before if not torch.equal(before[name].to(after[name].dtype), after[name])
    }
    assert any(name.startswith("decoder.") and name.endswith("qkv.weight") for name in changed)
    assert any(name.startswith("flow_head.") for name in changed)
    assert not any(name.startswith("encoder.") for name in changed)
    assert "research only" in (tmp_path / "run" / "model" / "manifest.yaml").read_text(
        encoding="utf-8"
    )
