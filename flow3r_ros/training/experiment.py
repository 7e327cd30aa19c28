"""`flow3r train --experiment factored`: the paper's controlled experiment at a scale that a CPU can
afford.

One small network is pretrained with labels on clips of its own (the paper starts from a pretrained
network too). From there every row trains for the same number of steps on batches of the same size:
3-D labels on few clips (`3d-sup`); the same plus unlabelled clips taught by flow in three ways;
labels for everything (`3d-sup++`); then the factored way with 3x and 10x as many unlabelled clips.
A seed chooses which clips are labelled, and the order of the data. Flow of the unlabelled clips is
the factory's own: an ideal 2-D teacher, so that the *form* of supervision is compared and not a
teacher. The network sees images, rays and DIS flow, but neither triangulated depth nor prior poses,
which would hand it the answer.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flow3r_ros.errors import TrainingError
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
from flow3r_ros.network.model import Flow3r
from flow3r_ros.paths import write_atomically
from flow3r_ros.training.checkpointing import checkpoint_steps
from flow3r_ros.training.experiment_page import METRICS, Results, write_page
from flow3r_ros.training.loop import run
from flow3r_ros.training.sample import Sample, SampleSource
from flow3r_ros.training.scenes.shards import SceneShards, write_shards
from flow3r_ros.training.train_config import TrainSettings
from flow3r_ros.types import Evidence

logger = logging.getLogger(__name__)

Kind = Literal["factored", "projective", "tracking"]
_TRAINING_SHARDS, _HELD_OUT_SHARDS, _HELD_OUT_FIRST = 60, 3, 900_000


@dataclass(frozen=True)
class Row:
    """One line of the table: how many unlabelled clips, whether they bring 3-D labels, and what the
    flow loss looks at."""

    name: str
    unlabelled: int
    labels: bool = False
    kind: Kind = "factored"


@dataclass(frozen=True)
class Budget:
    """What every row gets: `steps` of `clips_per_step` clips, half of them labelled; `unlabelled`
    clips at 1x.

    The clips that no row needs are those of the pretraining.
    """

    steps: int = 220
    pretraining_steps: int = 1000
    clips_per_step: int = 6
    labelled: int = 24
    unlabelled: int = 48
    held_out: int = 72


def rows_of(unlabelled: int) -> list[Row]:
    """The paper's rows for a given 1x number of unlabelled clips."""
    return [
        Row("3d-sup", 0),
        Row("flow-projective", unlabelled, kind="projective"),
        Row("flow-tracking", unlabelled, kind="tracking"),
        Row("flow-factored", unlabelled),
        Row("3d-sup++", unlabelled, labels=True),
        Row("flow-factored 3x", 3 * unlabelled),
        Row("flow-factored 10x", 10 * unlabelled),
    ]


def run_experiment(
    output: Path, data: Sequence[Path], seeds: Sequence[int], budget: Budget, command: str
) -> Path:
    """Train every row with every seed; write `output/experiment.json`, the page
    `output/experiments.md` and its figure.

    Rows that are finished are not trained again, others continue from their newest checkpoint.

    Args:
        data: a folder of scene shards to train on and one of held-out shards; what is missing is
            rendered into `output`.
        command: what the page says it was made by.

    Raises TrainingError when the clips are fewer than the 10x row and a pretraining need.
    """
    training = data[0] if data else _render(output / "shards", 0, _TRAINING_SHARDS, "train")
    held_out = (
        data[1]
        if len(data) > 1
        else _render(output / "held_out", _HELD_OUT_FIRST, _HELD_OUT_SHARDS, "held_out")
    )
    clips = _clips(SceneShards([training], 0, 1))
    pool = budget.labelled + 10 * budget.unlabelled
    if len(clips) <= pool:
        raise TrainingError(
            f"the experiment needs {pool} clips and some to pretrain on, there are {len(clips)}",
            "render more, or leave out --data",
        )
    held = Blinded(SceneShards([held_out], 0, 1))
    start, before = _pretrained(
        output / "pretraining", OneGrid(clips[pool:], [], budget.clips_per_step, 0), held, budget
    )
    rows = [{"row": "start", "seed": 0, **before}]
    for row in rows_of(budget.unlabelled):
        for seed in seeds:
            folder = output / f"{row.name.replace(' ', '_')}_{seed}"
            source = _source(row, clips[:pool], seed, budget)
            weights = {
                "flow": 0.0 if row.labels or row.unlabelled == 0 else 2.0,
                "flow_kind": row.kind,
            }
            rows.append(
                {
                    "row": row.name,
                    "seed": seed,
                    **_train(folder, start, source, held, seed, budget.steps, weights, budget),
                }
            )
    machine = f"{platform.machine()}, one CPU thread, torch {torch.__version__}"
    results = Results(
        command=command,
        machine=machine,
        seeds=list(seeds),
        budget=asdict(budget),
        introduction=(__doc__ or "").partition("\n\n")[2],
        rows=rows,
    )
    write_atomically(output / "experiment.json", json.dumps(results, indent=1).encode())
    return write_page(output / "experiments.md", results)


def _train(
    folder: Path,
    start: Path,
    source: SampleSource,
    held: Blinded,
    seed: int,
    steps: int,
    loss: dict[str, Any],
    budget: Budget,
) -> dict[str, float]:
    """One training on one thread; its scores are kept in `folder/scores.json`, and only read when
    they are there."""
    done = folder / "scores.json"
    if done.exists():
        kept: dict[str, float] = json.loads(done.read_text(encoding="utf-8"))
        return kept
    began = time.monotonic()
    settings = TrainSettings.model_validate(
        {
            "start_from": str(start),
            "name": "flow3r_experiment",
            "seed": seed,
            "steps": steps,
            "clips_per_step": budget.clips_per_step,
            "pairs_per_clip": 2,
            "threads": 1,
            "precision": "32-true",
            "checkpoint_every": 100,
            "validation_clips": budget.held_out,
            "loss": {"recipe": "relative", "pose": 1.0, "flow": 2.0, "normal": 0.0, **loss},
            "dropout": {"everything": 0.0, "correspondence": 0.0, "depth": 0.0, "poses": 0.0},
            "optimisation": {
                "learning_rate": 1e-3,
                "warmup_steps": min(50, steps // 5),
                "decay": "linear",
            },
        }
    )
    logger.info("%s: %d steps", folder.name, steps)
    metrics = run(
        settings,
        source,
        folder,
        validation=held,
        resume=bool(checkpoint_steps(folder / "checkpoints")),
    ).metrics
    scores = {
        **{name: metrics[name] for name in METRICS if name in metrics},
        "seconds": time.monotonic() - began,
    }
    write_atomically(done, json.dumps(scores).encode())
    return scores


def _pretrained(
    folder: Path, source: SampleSource, held: Blinded, budget: Budget
) -> tuple[Path, dict[str, float]]:
    """The model folder that every row starts from, with its scores: random weights, then labels of
    every kind."""
    random = _small_network(folder / "random", 0)
    return folder / "model", _train(
        folder, random, source, held, 0, budget.pretraining_steps, {}, budget
    )


def _source(row: Row, pool: list[Sample], seed: int, budget: Budget) -> OneGrid:
    """Which clips of the pool a seed labels, and which of the others a row sees."""
    order = np.random.default_rng((seed, 0)).permutation(len(pool))
    chosen = [pool[index] for index in order]
    others = chosen[budget.labelled : budget.labelled + row.unlabelled]
    if not row.labels:
        others = [replace(sample, depth=None, poses=None) for sample in others]
    return OneGrid(chosen[: budget.labelled], others, budget.clips_per_step, seed)


class OneGrid:
    """Each step: clips of one grid, half of them from `first` and half from `second` (all from
    `first` where `second` has none)."""

    def __init__(
        self, first: list[Sample], second: list[Sample], clips_per_step: int, seed: int
    ) -> None:
        self._first, self._second, self._clips_per_step, self._seed = (
            first,
            second,
            clips_per_step,
            seed,
        )

    def batch(self, step: int, part: slice = slice(None)) -> list[Sample]:
        """The samples of a step, or only some of them."""
        rng = np.random.default_rng((self._seed, step))
        shape = self._first[int(rng.integers(len(self._first)))].rgb.shape
        first = [sample for sample in self._first if sample.rgb.shape == shape]
        second = [sample for sample in self._second if sample.rgb.shape == shape] or first
        half = (self._clips_per_step + 1) // 2
        drawn = [first[int(index)] for index in rng.integers(len(first), size=half)]
        drawn += [
            second[int(index)]
            for index in rng.integers(len(second), size=self._clips_per_step - half)
        ]
        return drawn[part]


class Blinded:
    """Held-out clips with the same evidence as in training: no triangulated depth, no prior
    poses."""

    def __init__(self, clips: SceneShards) -> None:
        self._clips = clips

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` clips."""
        return (
            [_without_answer(sample) for sample in samples] for samples in self._clips.all(limit)
        )


def _without_answer(sample: Sample) -> Sample:
    assert sample.evidence is not None
    planes = sample.evidence.planes.copy()
    planes[:, 2:4] = 0
    return replace(sample, evidence=Evidence(planes, np.tile(np.eye(4), (len(planes), 1, 1))))


def _clips(shards: SceneShards) -> list[Sample]:
    """All clips in an order of chance, so that every part has clips of every grid."""
    found = [_without_answer(samples[0]) for samples in shards.all(len(shards))]
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


def _render(folder: Path, first: int, shards: int, textures: Literal["train", "held_out"]) -> Path:
    """Scene shards on small grids; those that exist are kept. Returns the folder that holds
    them."""
    for path in write_shards(folder, first, shards, textures, sizes=("small",)):
        logger.info("%s", path)
    return folder / "small"


def _small_network(folder: Path, seed: int) -> Path:
    """The network before any training: 1.7 M parameters, flow head on top of zero flow, not of a
    reprojection."""
    if folder.exists():
        return folder
    torch.manual_seed(seed)
    head = HeadDecoderConfig(width=64, blocks=4, heads=2, out=64)
    config = Flow3rConfig(
        name="flow3r_experiment",
        initialisation="scratch",
        encoder=EncoderConfig(
            width=96, blocks=2, heads=3, layer_scale=1.0, rope_base=None, image_size=112
        ),
        decoder=DecoderConfig(width=96, blocks=4, heads=3, layer_scale=0.5, qk_norm=True),
        point_decoder=head,
        conf_decoder=head.model_copy(update={"blocks": 1, "out": 32}),
        camera_decoder=head,
        flow_head=FlowHeadConfig(features=24, level_channels=(24, 32, 48, 48), base="identity"),
        evidence=EvidenceConfig(width=24, skip_width=8),
    )
    manifest = Manifest(
        name=config.name,
        source="random weights",
        license="Apache-2.0",
        parameters=0,
        input=InputSpec(resolution=(112, 84)),
    )
    save_model_folder(folder, Flow3r(config), manifest, replace=True)
    return folder
