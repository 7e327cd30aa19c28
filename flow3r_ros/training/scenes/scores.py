"""`flow3r evaluate scenes`: a network by itself on synthetic scenes whose textures and seeds no
training has seen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from flow3r_ros.config import ModelSettings
from flow3r_ros.errors import TrainingError, cause_of
from flow3r_ros.network.catalog import find_model
from flow3r_ros.network.runner import open_model
from flow3r_ros.training.scenes.shards import SceneShards, write_shards
from flow3r_ros.training.validation import validate

FIRST_SHARD, SHARDS = 900_000, 3
"""numbers of shards are seeds; training counts from 0"""


def evaluate_on_scenes(
    settings: ModelSettings, folder: Path, shards: int = SHARDS
) -> dict[str, Any]:
    """Score the network of the settings on held-out scenes, which are rendered into `folder` where
    they are not there yet.

    Returns:
        `model`, `clips`, `frames` and the metrics of `training.validation.validate`.

    Raises:
        ModelError: the model is not there.
        TrainingError: the folder cannot be written.
    """
    model = open_model(settings)
    try:
        (folder / "full").mkdir(parents=True, exist_ok=True)
        list(write_shards(folder, FIRST_SHARD, shards, "held_out", sizes=("full",)))
    except OSError as error:
        raise TrainingError(
            f"{folder}: scenes cannot be written there ({cause_of(error)})",
            "give another folder with --data",
        ) from error
    scenes = SceneShards([folder / "full"], seed=0, clips_per_step=1)
    clips = list(scenes.all(len(scenes)))
    return {
        "model": find_model(settings.name).manifest.name,
        "frames": sum(len(sample.rgb) for clip in clips for sample in clip),
        **validate(model, clips),
    }
