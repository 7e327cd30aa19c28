"""Two processes with gloo, sharing gradients or the network too, give the losses and the weights of
one with the same global batch."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import yaml
from safetensors.torch import load_file

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.loop import train
from flow3r_ros.training.scenes import shards as scene_shards
from flow3r_ros.training.scenes.shards import training_clip, write_shards
from flow3r_ros.training.sharding import launch
from flow3r_ros.training.train_config import TrainSettings

CASES: dict[str, dict[str, object]] = {
    "ddp": {"strategy": "ddp"},
    "fsdp": {"strategy": "fsdp"},
    "adapters": {
        "strategy": "fsdp", "adapters": {"rank": 4}, "activation_checkpointing": True,
    },
}  # fmt: skip
WORKER = """
import sys
from pathlib import Path
import torch
from flow3r_ros.training.loop import train
torch.set_num_threads(1)
data = Path(sys.argv[1])
for folder in map(Path, sys.argv[2:]):
    shared = folder.name != "ddp"
    for steps in (1, 2) if shared else (2,):
        train(folder / "train.yaml", [data], folder / "two", steps, shared and steps > 1)
"""


def losses_of(output: Path) -> list[list[float]]:
    with (output / "metrics.csv").open() as file:
        return [
            [float(row[name]) for name in ("loss", "flow", "point", "pose", "gradient_norm")]
            for row in csv.DictReader(file)
        ]


def scenes_of(folder: Path) -> Path:
    """A shard of four clips of two frames with a held-out one of two clips."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scene_shards, "_CLIPS_PER_SHARD", 4)
        patch.setattr(scene_shards, "training_clip", partial(training_clip, frames=2))
        patch.setitem(scene_shards.GRIDS, "small", ((56, 42),))
        held_out = folder / "small" / "held_out"
        list(write_shards(folder, 0, 1, "photographs", sizes=("small",)))
        patch.setattr(scene_shards, "_CLIPS_PER_SHARD", 2)
        list(write_shards(held_out, 1, 1, "held_out", sizes=("small",)))
    for shard in (held_out / "small").glob("scenes_*"):
        shard.rename(held_out / shard.name)
    return folder / "small"


@pytest.fixture(scope="module")
def trained(
    tmp_path_factory: pytest.TempPathFactory, tiny_settings: Callable[..., TrainSettings]
) -> Path:
    """For every case a folder with a run of `one` process and one of `two`, which is resumed
    after its first step where the network is shared: it is also written and read in parts. All
    cases share their processes, which take longer to start than to train."""
    root = tmp_path_factory.mktemp("trained")
    data = scenes_of(root / "scenes")
    for name, changes in CASES.items():
        settings = tiny_settings(
            steps=2, clips_per_step=4, validation_clips=1, dropout={},
            optimisation={"learning_rate": 1e-4, "warmup_steps": 1}, **changes,
        )  # fmt: skip
        (root / name).mkdir()
        config = root / name / "train.yaml"
        config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
        train(config, [data], root / name / "one")
    script = root / "worker.py"
    script.write_text(WORKER)
    launcher = ["-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    folders = [str(root / name) for name in CASES]
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    done = subprocess.run(
        [sys.executable, *launcher, str(data), *folders],
        env=environment, capture_output=True, text=True, timeout=800, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return root


@pytest.mark.parametrize("name", CASES)
def test_two_processes_equal_one_with_the_same_global_batch(name: str, trained: Path) -> None:
    folder = trained / name
    one, two = losses_of(folder / "one"), losses_of(folder / "two")
    assert len(one) == len(two) == 2
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3)
    ours, theirs = (
        load_file(folder / run / "checkpoints" / "optimizer_000002.safetensors")
        for run in ("one", "two")
    )
    for key in (key for key in ours if key.startswith("exp_avg.")):
        assert float((ours[key] - theirs[key]).norm()) <= 1e-2 * float(ours[key].norm()) + 1e-6, key
    ours, theirs = (
        load_file(folder / run / "model" / "model.safetensors") for run in ("one", "two")
    )
    assert {name: value.shape for name, value in ours.items()} == {
        name: value.shape for name, value in theirs.items()
    }
    scores = [
        json.loads((folder / run / "validation.jsonl").read_text().splitlines()[-1])
        for run in ("one", "two")
    ]
    assert scores[1]["epe_head"] == pytest.approx(scores[0]["epe_head"], rel=2e-2)


def test_clips_that_cannot_be_shared_are_refused(monkeypatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(TrainingError, match="3 clips per step"):
        launch(TrainSettings(clips_per_step=3))
