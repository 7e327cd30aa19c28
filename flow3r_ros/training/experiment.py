"""`flow3r train --experiment factored`: the paper's controlled experiment at a scale that a CPU can
afford.

One small network is pretrained with labels on clips of its own (the paper starts from a pretrained
network too), and must pass two gates on held-out clips: rotation twice better than the identity's,
the factored head twice better than zero flow. Else no row is trained. From there every row trains
for the same number of steps on batches of the same size: 3-D labels on few clips (`3d-sup`) and
labels for everything (`3d-sup++`, the positive control). Only in measures in which every seed of
the control is better than every seed of `3d-sup` are rows compared; where there is none, nothing
more is trained. The other rows: few labels plus unlabelled clips taught by flow in three ways, and
the factored way with 3x and 10x as many unlabelled clips. A seed chooses which clips are labelled,
and the order of the data. Flow of the unlabelled clips is the factory's own: an ideal 2-D teacher,
so that the *form* of supervision is compared and not a teacher. The network sees images, rays and
DIS flow, but neither triangulated depth nor prior poses, which would hand it the answer. Clips are
two frames of a room (`experiment_clips`) unless `--data` brings others.
"""

from __future__ import annotations

import json
import logging
import platform
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import product
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
from flow3r_ros.training.experiment_clips import GRID, Blinded, OneGrid, clips_of, rendered
from flow3r_ros.training.experiment_gates import BASELINE, CONTROL, TRIVIAL, gates_of, separating
from flow3r_ros.training.experiment_page import METRICS, Results, write_page
from flow3r_ros.training.loop import run
from flow3r_ros.training.sample import Sample, SampleSource
from flow3r_ros.training.scenes.shards import SceneShards
from flow3r_ros.training.train_config import TrainSettings

logger = logging.getLogger(__name__)

Kind = Literal["factored", "projective", "tracking"]
_HELD_OUT_FIRST = 900_000
_PRETRAINING_RATE, _ROW_RATE = 1e-3, 3e-4
"""peak learning rates; rows go on from a network that knows the task, and a fresh optimiser at the
full rate costs more than it brings in so few steps"""
_FLOW = 2.0
"""weight of the flow loss"""
_KEPT = (*METRICS, *TRIVIAL)


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

    The clips that no row needs are those of the pretraining; `pretraining` of them are rendered.
    """

    steps: int = 80
    pretraining_steps: int = 450
    clips_per_step: int = 6
    labelled: int = 4
    unlabelled: int = 32
    pretraining: int = 396
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
    """Train every row with every seed, if the start passes the gates; write
    `output/experiment.json`, the page `output/experiments.md` and, where rows may be compared, its
    figure.

    Rows that are finished are not trained again, others continue from their newest checkpoint. The
    page is written whenever a row is finished that it may show.

    Args:
        data: a folder of scene shards to train on and one of held-out shards; what is missing is
            rendered into `output`.
        command: what the page says it was made by.

    Raises TrainingError when the clips are fewer than the 10x row and a pretraining need.
    """
    pool = budget.labelled + 10 * budget.unlabelled
    training = (
        data[0] if data else rendered(output / "shards", 0, pool + budget.pretraining, "train")
    )
    held_out = (
        data[1]
        if len(data) > 1
        else rendered(output / "held_out", _HELD_OUT_FIRST, budget.held_out, "held_out")
    )
    clips = clips_of(training)
    if len(clips) <= pool:
        raise TrainingError(
            f"the experiment needs {pool} clips and some to pretrain on, there are {len(clips)}",
            "render more, or leave out --data",
        )
    held = Blinded(SceneShards([held_out], 0, 1))
    start, before = _pretrained(
        output / "pretraining", OneGrid(clips[pool:], [], budget.clips_per_step, 0), held, budget
    )
    rows: list[dict[str, Any]] = [{"row": "start", "seed": 0, **before}]
    if not all(gate.passed for gate in gates_of(before)):
        return _written(output, rows, seeds, budget, command)
    every = rows_of(budget.unlabelled)
    control = [row for row in every if row.name in (BASELINE, CONTROL)]
    rows += _rows(control, output, start, clips[:pool], held, seeds, budget)
    page = _written(output, rows, seeds, budget, command)
    others = [row for row in every if row not in control] if separating(rows) else []
    for scores in _rows(others, output, start, clips[:pool], held, seeds, budget):
        rows.append(scores)
        page = _written(output, rows, seeds, budget, command)
    return page


def _written(
    output: Path, rows: list[dict[str, Any]], seeds: Sequence[int], budget: Budget, command: str
) -> Path:
    """The page of what is there so far."""
    results = Results(
        command=command,
        machine=f"{platform.machine()}, one CPU thread, torch {torch.__version__}",
        seeds=list(seeds),
        budget=asdict(budget),
        introduction=(__doc__ or "").partition("\n\n")[2],
        rows=rows,
    )
    write_atomically(output / "experiment.json", json.dumps(results, indent=1).encode())
    return write_page(output / "experiments.md", results)


def _rows(
    rows: Sequence[Row],
    output: Path,
    start: Path,
    pool: list[Sample],
    held: Blinded,
    seeds: Sequence[int],
    budget: Budget,
) -> Iterator[dict[str, Any]]:
    """The scores of some rows, seed after seed, so that what is there compares like with like."""
    for seed, row in product(seeds, rows):
        scores = _train(
            output / f"{row.name.replace(' ', '_')}_{seed}",
            start,
            _source(row, pool, seed, budget),
            held,
            seed,
            budget.steps,
            _ROW_RATE,
            {
                "flow": 0.0 if row.labels or row.unlabelled == 0 else _FLOW,
                "flow_kind": row.kind,
            },
            budget,
        )
        yield {"row": row.name, "seed": seed, **scores}


def _train(
    folder: Path,
    start: Path,
    source: SampleSource,
    held: Blinded,
    seed: int,
    steps: int,
    rate: float,
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
            "loss": {"recipe": "relative", "pose": 1.0, "flow": _FLOW, "normal": 0.0, **loss},
            "dropout": {"everything": 0.0, "correspondence": 0.0, "depth": 0.0, "poses": 0.0},
            "optimisation": {
                "learning_rate": rate,
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
        **{name: metrics[name] for name in _KEPT if name in metrics},
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
        folder, random, source, held, 0, budget.pretraining_steps, _PRETRAINING_RATE, {}, budget
    )


def _source(row: Row, pool: list[Sample], seed: int, budget: Budget) -> OneGrid:
    """Which clips of the pool a seed labels, and which of the others a row sees."""
    order = np.random.default_rng((seed, 0)).permutation(len(pool))
    chosen = [pool[index] for index in order]
    others = chosen[budget.labelled : budget.labelled + row.unlabelled]
    if not row.labels:
        others = [replace(sample, depth=None, poses=None) for sample in others]
    return OneGrid(chosen[: budget.labelled], others, budget.clips_per_step, seed)


def _small_network(folder: Path, seed: int) -> Path:
    """The network before any training: 0.9 M parameters, flow head on top of zero flow, not of a
    reprojection."""
    if folder.exists():
        return folder
    torch.manual_seed(seed)
    head = HeadDecoderConfig(width=48, blocks=4, heads=2, out=48)
    config = Flow3rConfig(
        name="flow3r_experiment",
        initialisation="scratch",
        encoder=EncoderConfig(
            width=64, blocks=1, heads=2, layer_scale=1.0, rope_base=None, image_size=GRID[0]
        ),
        decoder=DecoderConfig(width=64, blocks=4, heads=2, layer_scale=0.5, qk_norm=True),
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
        input=InputSpec(resolution=GRID),
    )
    save_model_folder(folder, Flow3r(config), manifest, replace=True)
    return folder
