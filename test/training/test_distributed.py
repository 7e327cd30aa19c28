"""Two processes with gloo, sharing gradients or the network too, give the losses and the weights of
one with the same global batch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.loop import train
from flow3r_ros.training.scenes import shards as scene_shards
from flow3r_ros.training.scenes.shards import write_shards
from flow3r_ros.training.sharding import launch
from flow3r_ros.training.train_config import TrainSettings

WORKER = """
import sys
from pathlib import Path
import torch
from flow3r_ros.training.loop import train
torch.set_num_threads(1)
config, data, output = map(Path, sys.argv[1:4])
train(config, [data], output, int(sys.argv[4]), resume="resume" in sys.argv)
"""


def losses_of(output: Path) -> list[list[float]]:
    with (output / "metrics.csv").open() as file:
        return [
            [float(row[name]) for name in ("loss", "flow", "point", "pose", "gradient_norm")]
            for row in csv.DictReader(file)
        ]


@pytest.mark.parametrize(
    ("strategy", "changes"),
    [
        ("ddp", {}),
        ("fsdp", {}),
        ("fsdp", {"adapters": {"rank": 4}, "activation_checkpointing": True}),
    ],
)
def test_two_processes_equal_one_with_the_same_global_batch(
    strategy: str,
    changes: dict[str, object],
    tmp_path: Path,
    tiny_settings,
    monkeypatch,
) -> None:
    monkeypatch.setattr("flow3r_ros.training.scenes.shards._CLIPS_PER_SHARD", 4)
    monkeypatch.setitem(scene_shards.GRIDS, "small", ((56, 42),))
    list(write_shards(tmp_path / "scenes", 0, 1, "photographs"))
    list(write_shards(tmp_path / "scenes" / "small" / "held_out", 1, 1, "held_out"))
    held_out = tmp_path / "scenes" / "small" / "held_out"
    for shard in (held_out / "small").glob("scenes_*"):
        shard.rename(held_out / shard.name)
    tree = {
        "steps": 2,
        "clips_per_step": 4,
        "validate_every": 1,
        "validation_clips": 2,
        "strategy": strategy,
        "dropout": {},
        **changes,
    }
    settings = tiny_settings(**tree, optimisation={"learning_rate": 1e-4, "warmup_steps": 1})
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    train(config, [tmp_path / "scenes" / "small"], tmp_path / "one")

    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc_per_node=2",
        "--standalone",
        str(script),
    ]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    paths = [str(config), str(tmp_path / "scenes" / "small"), str(tmp_path / "two")]
    for more in (["1"], ["2", "resume"]):  # a shared network is also written and read in parts
        done = subprocess.run(
            [*command, *paths, *more],
            env=environment,
            capture_output=True,
            text=True,
            timeout=800,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-2000:]

    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    ours, theirs = (
        load_file(tmp_path / run / "checkpoints" / "optimizer_000002.safetensors")
        for run in ("one", "two")
    )
    for name in (name for name in ours if name.startswith("exp_avg.")):
        assert (
            float((ours[name] - theirs[name]).norm()) <= 1e-2 * float(ours[name].norm()) + 1e-6
        ), name
    ours, theirs = (
        load_file(tmp_path / run / "model" / "model.safetensors") for run in ("one", "two")
    )
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }
    scores = [
        json.loads((tmp_path / run / "validation.jsonl").read_text().splitlines()[-1])
        for run in ("one", "two")
    ]
    assert scores[1]["epe_head"] == pytest.approx(scores[0]["epe_head"], rel=2e-2)


def test_clips_that_cannot_be_shared_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="3 clips per step"):
        launch(TrainSettings(clips_per_step=3))
