"""Two processes with gloo give the losses and the weights of one process with the same global batch."""

from __future__ import annotations

import csv
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.loop import launch, train
from flow3r_ros.training.scene_shards import write_shards
from flow3r_ros.training.train_config import TrainSettings
from test.training.test_loop import tiny_settings  # noqa: F401

WORKER = """
import sys
from pathlib import Path
import torch
from flow3r_ros.training.loop import train
torch.set_num_threads(1)
train(Path(sys.argv[1]), [Path(sys.argv[2])], Path(sys.argv[3]))
"""


def losses_of(output: Path) -> list[list[float]]:
    with (output / "metrics.csv").open() as file:
        return [[float(row[name]) for name in ("loss", "flow", "point", "pose", "gradient_norm")] for row in csv.DictReader(file)]


def test_two_processes_equal_one_with_the_same_global_batch(tmp_path: Path, tiny_settings, monkeypatch) -> None:  # noqa: F811
    monkeypatch.setattr("flow3r_ros.training.scene_shards._CLIPS_PER_SHARD", 4)
    monkeypatch.setattr("flow3r_ros.training.scene_shards.SMALL_GRIDS", ((56, 42),))
    list(write_shards(tmp_path / "scenes", 0, 1, "photographs"))
    settings = tiny_settings(steps=2, clips_per_step=4, dropout={}, optimisation={"learning_rate": 1e-4, "warmup_steps": 1})
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    train(config, [tmp_path / "scenes" / "small"], tmp_path / "one")

    script = tmp_path / "worker.py"
    script.write_text(WORKER)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--master_port=29513", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parents[2])}
    paths = [str(config), str(tmp_path / "scenes" / "small"), str(tmp_path / "two")]
    done = subprocess.run([*command, *paths], env=environment, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]

    one, two = losses_of(tmp_path / "one"), losses_of(tmp_path / "two")
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    ours, theirs = (load_file(tmp_path / run / "checkpoints" / "optimizer_000002.safetensors") for run in ("one", "two"))
    for name in (name for name in ours if name.startswith("exp_avg.")):
        assert float((ours[name] - theirs[name]).norm()) <= 1e-2 * float(ours[name].norm()) + 1e-6, name


def test_clips_that_cannot_be_shared_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="3 clips per step"):
        launch(TrainSettings(clips_per_step=3))
