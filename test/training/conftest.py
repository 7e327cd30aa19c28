"""Fixtures of training: a few rendered samples, and settings that start from a tiny network."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from flow3r_ros.network import Flow3r
from flow3r_ros.network.catalog import InputSpec, Manifest
from flow3r_ros.network.checkpoint import save_model_folder
from flow3r_ros.network.config import (
    DecoderConfig,
    EncoderConfig,
    EvidenceConfig,
    Flow3rConfig,
    FlowHeadConfig,
    HeadDecoderConfig,
)
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scenes.shards import training_clip
from flow3r_ros.training.train_config import TrainSettings

GRID = (56, 42)


def make_settings(start_from: str, **changes: object) -> TrainSettings:
    tree = {
        "start_from": start_from,
        "steps": 60,
        "clips_per_step": 2,
        "precision": "32-true",
        "checkpoint_every": 4,
        "log_every": 1,
        "optimisation": {"learning_rate": 3e-3, "warmup_steps": 5},
        "dropout": {"everything": 0.0, "correspondence": 0.0, "depth": 0.0, "poses": 0.0},
        **changes,
    }
    return TrainSettings.model_validate(tree)


@pytest.fixture(scope="session")
def samples() -> list[Sample]:
    return [training_clip(seed, [GRID], "photographs", frames=3)[0] for seed in range(4)]


@pytest.fixture(scope="session")
def tiny_settings(tmp_path_factory):
    """Factory of settings that start from a tiny network of the nano kind."""
    head = HeadDecoderConfig(width=32, blocks=4, heads=2, out=16)
    architecture = Flow3rConfig(
        name="tiny",
        initialisation="scratch",
        encoder=EncoderConfig(
            width=32, blocks=1, heads=2, layer_scale=1.0, rope_base=None, image_size=56
        ),
        decoder=DecoderConfig(width=32, blocks=2, heads=2, layer_scale=0.5, qk_norm=True),
        point_decoder=head,
        conf_decoder=head.model_copy(update={"blocks": 1}),
        camera_decoder=head,
        flow_head=FlowHeadConfig(features=8, level_channels=(8, 8, 8, 8), base="reprojection"),
        evidence=EvidenceConfig(width=8, skip_width=4),
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models") / "tiny"
    manifest = Manifest(
        name="tiny",
        source="test",
        parameters=0,
        input=InputSpec(resolution=GRID),
        trained_on="nothing",
    )
    save_model_folder(folder, Flow3r(architecture), manifest)
    return partial(make_settings, str(folder))
