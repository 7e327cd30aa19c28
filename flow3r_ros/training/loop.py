"""The training loop: one function you can hold in your head, on Lightning Fabric.

A step is a pure function of (settings, data, step number), so a resumed run gives the losses of an
uninterrupted one. What is exported and validated are the averaged weights. Under `torchrun` every
process takes its share of each step's clips and gradients are averaged (DDP), which gives the
losses of one process with all clips; with `strategy: fsdp` they share the network as well
(`sharding`).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from flow3r_ros.errors import OutputError, StorageError, TrainingError
from flow3r_ros.network.catalog import find_model
from flow3r_ros.network.model import Flow3r
from flow3r_ros.storage import Location
from flow3r_ros.training.adapters import prepare
from flow3r_ros.training.calibrating import calibrate
from flow3r_ros.training.checkpointing import (
    checkpoint_steps,
    load_checkpoint,
    save_checkpoint,
    seconds_of,
)
from flow3r_ros.training.data import HeldOut, open_data
from flow3r_ros.training.export import export, initial_network
from flow3r_ros.training.folder import RunFolder, run_folder
from flow3r_ros.training.journal import Journal, Silent, scores_before
from flow3r_ros.training.loader import Loader
from flow3r_ros.training.memory import check_memory, enough_memory
from flow3r_ros.training.objective import NOT_FINITE, objective
from flow3r_ros.training.optimisation import (
    averaged,
    averages_of,
    clip_gradients,
    follow,
    learning_rate,
    make_optimizer,
)
from flow3r_ros.training.paired import Pairing, Recordings, require_gain
from flow3r_ros.training.pictures import draw
from flow3r_ros.training.sample import Batch, SampleSource, augment, collate, to_device
from flow3r_ros.training.sharding import gather, launch
from flow3r_ros.training.stopping import Interrupt, keep_batch
from flow3r_ros.training.train_config import TrainSettings, load_train_settings
from flow3r_ros.training.validation import answer, validate

if TYPE_CHECKING:
    from lightning.fabric import Fabric

LOST_IN_A_ROW = 10
"""steps one after the other whose loss or gradient was not finite or too large, after which a run
will not come back by itself"""


@dataclass
class TrainResult:
    """What a run leaves behind: steps done, the model folder and the held-out metrics (empty
    without held-out clips)."""

    steps: int
    model: Location
    metrics: dict[str, float]


def train(
    config_file: Path,
    data: Sequence[Location],
    output: Location,
    max_steps: int | None = None,
    resume: bool = False,
    licences: Sequence[str] = (),
) -> TrainResult:
    """What `flow3r train` calls: read settings and data, train, write `output/model`.

    Args:
        data: whatever `training.data.open_data` understands: scene shards, label caches, labelled
            data sets, recordings.
        max_steps: stop after this many steps; the schedule stays the one of the settings.
        resume: continue from the newest checkpoint in `output`.
        licences: of the data, for the manifest: one for all, or one each.
    """
    settings = load_train_settings(config_file)
    with run_folder(output, resume) as folder:
        per_step = settings.clips_per_step, settings.pairs_per_clip
        found = open_data(data, settings.data, settings.seed, *per_step, output, licences)
        return _run(
            settings,
            found.source,
            folder,
            found.held_out,
            found.held_out,
            found.provenance,
            max_steps,
            resume,
        )


def run(
    settings: TrainSettings,
    source: SampleSource,
    output: Path,
    *,
    validation: HeldOut | None = None,
    recordings: Recordings | None = None,
    provenance: Mapping[str, Any] | None = None,
    max_steps: int | None = None,
    resume: bool = False,
) -> TrainResult:
    """Train on any source of samples; `provenance` (data, teacher) goes into the manifest beside
    the metrics before and after, those of `recordings` pair by pair.

    An interrupt (Ctrl-C, SIGTERM) ends the step under way, saves a checkpoint and raises
    KeyboardInterrupt. A step whose loss is not finite is lost and counted. Raises TrainingError
    when `LOST_IN_A_ROW` are (the last batch is saved beside the checkpoints) or memory is too
    small, after a checkpoint of the steps before; OutputError when `output` already holds a run and
    `resume` is not set, or another process trains into it.
    """
    with run_folder(output, resume) as folder:
        return _run(settings, source, folder, validation, recordings, provenance, max_steps, resume)


def _run(
    settings: TrainSettings,
    source: SampleSource,
    folder: RunFolder,
    validation: HeldOut | None,
    recordings: Recordings | None,
    provenance: Mapping[str, Any] | None,
    max_steps: int | None,
    resume: bool,
) -> TrainResult:
    output, checkpoints = folder.path, folder.path / "checkpoints"
    if not resume and checkpoint_steps(checkpoints):
        raise OutputError(
            f"{output} already holds a training run",
            "resume it with --resume or choose another --output",
        )
    if settings.threads:
        torch.set_num_threads(settings.threads)
    fabric = launch(settings)
    torch.manual_seed(settings.seed)
    network = initial_network(settings)
    prepare(network, settings)
    base = "" if settings.adapters is None else find_model(settings.start_from).manifest.sha256
    model = fabric.setup_module(network)
    adam = make_optimizer(network, settings.optimisation)
    optimizer = fabric.setup_optimizers(adam)
    average = averages_of(network)
    first = load_checkpoint(checkpoints, network, average, adam, base) if resume else 0
    last = min(settings.steps, max_steps if max_steps is not None else settings.steps)
    started = time.monotonic() - (seconds_of(checkpoints) if resume else 0.0)
    make = partial(make_batch, settings, source, fabric.global_rank, fabric.world_size)
    writes, alone = fabric.is_global_zero, fabric.world_size == 1
    pairing = Pairing(recordings, output / "paired.json", settings.validation_clips)
    made_with, keep = settings.model_dump_json(), settings.keep_checkpoints

    def save(done: int) -> None:
        spent = time.monotonic() - started
        save_checkpoint(
            checkpoints, done, network, average, adam, made_with, keep, base, writes, spent
        )
        folder.keep()

    if alone and first < last:
        one = make_batch(settings, source, 0, settings.clips_per_step, first)
        check_memory(model, to_device(one, fabric.device), settings.clips_per_step)
    with (
        Journal(output, first) if writes else Silent() as journal,
        Loader(make, settings.loader_threads) as batches,
        Interrupt(alone) as interrupt,
    ):
        if validation is not None and first == 0 and settings.start_from != "nano":
            _validate(network, average, validation, settings, journal, 0)
            pairing.before(network)
        lost = 0
        for step in range(first, last):
            try:
                with enough_memory():
                    row = _step(
                        fabric,
                        model,
                        optimizer,
                        to_device(batches(step), fabric.device),
                        settings,
                        step,
                        output,
                        lost,
                    )
            except (TrainingError, StorageError):
                if alone and step > first:
                    save(step)
                raise
            lost = lost + 1 if row["skipped"] else 0
            follow(average, network, settings.optimisation.ema, step)
            row["wait_s"] = batches.wait_s
            done = step + 1
            if done % settings.log_every == 0 or done == last:
                journal.write(row)
            if done % settings.checkpoint_every == 0 or done == last or interrupt.asked:
                save(done)
            if interrupt.asked:
                raise KeyboardInterrupt
            if (
                validation is not None
                and settings.validate_every
                and done % settings.validate_every == 0
                and done != last
            ):
                _validate(network, average, validation, settings, journal, done)
        scores = (
            _validate(network, average, validation, settings, journal, last)
            if validation is not None
            else {}
        )
        with averaged(network, average):
            paired = pairing.after(network)
            clips = [] if validation is None else validation.all(settings.validation_clips)
            curve = calibrate(network, clips, "the held-out data of this run")
        if settings.only_if_better:
            require_gain(paired)
    finished = gather({**network.state_dict(), **average})
    if writes:
        facts = {**(provenance or {}), "steps": last, "metrics_before": scores_before(output)}
        facts |= {"calibration": curve, "paired": paired}
        seconds = time.monotonic() - started
        export(
            network,
            finished,
            output / "model",
            settings,
            steps=last,
            seconds=seconds,
            metrics=scores,
            provenance=facts,
        )
    return TrainResult(last, folder.final / "model", scores)


def _step(
    fabric: Fabric,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    batch: Batch,
    settings: TrainSettings,
    step: int,
    output: Path,
    lost_before: int,
) -> dict[str, float]:
    """Forward, backward, clip, update; the row of metrics.csv. A step whose loss or gradient is too
    large or not finite changes nothing."""
    began = time.monotonic()
    rate = learning_rate(settings.optimisation, settings.steps, step)
    for group in optimizer.param_groups:
        group["lr"] = rate * group["factor"]
    outputs = model(batch.images, batch.pairs if batch.pairs.shape[1] else None, batch.evidence)
    loss, terms = objective(outputs, batch, settings.loss)
    lost = _mean(fabric, terms.pop(NOT_FINITE)) > 0
    if not loss.requires_grad:
        raise TrainingError(
            "nothing that learns takes part in the loss",
            "change train_only, adapters or the loss weights",
        )
    row: dict[str, float] = {
        "step": step + 1,
        "loss": _mean(fabric, loss),
        "learning_rate": rate,
        "skipped": float(lost),
    }
    row |= {name: _mean(fabric, value) for name, value in terms.items()}
    if not row["loss"] <= settings.optimisation.skip_above:
        row["skipped"] = 1.0
    else:
        fabric.backward(loss)
        row["gradient_norm"] = clip_gradients(model, settings.optimisation.clip_norm)
        if math.isfinite(row["gradient_norm"]):
            optimizer.step()
        else:
            row["skipped"] = 1.0
    optimizer.zero_grad(set_to_none=True)
    if row["skipped"] and lost_before + 1 >= LOST_IN_A_ROW:
        raise keep_batch(
            output, batch, f"{LOST_IN_A_ROW} steps up to {step + 1} were lost one after the other"
        )
    row["step_s"] = time.monotonic() - began
    return row


def _mean(fabric: Fabric, value: Tensor) -> float:
    """The mean over all processes, so that every one takes the same decisions."""
    return float(fabric.all_reduce(value.detach(), reduce_op="mean"))


def _validate(
    network: Flow3r,
    average: dict[str, Tensor],
    clips: HeldOut,
    settings: TrainSettings,
    journal: Silent,
    step: int,
) -> dict[str, float]:
    """Metrics and pictures of the averaged weights on held-out clips, into the journal; every
    process does the same."""
    with averaged(network, average):
        scores = validate(network, clips.all(settings.validation_clips))
        network.eval()
        for samples in clips.all(1):
            batch = collate(samples[:1])
            for name, image in draw(
                answer(network, batch, batch.pairs, batch.evidence), batch
            ).items():
                journal.picture(step, name, image)
        network.train()
    journal.scores(step, scores)
    return scores


def make_batch(
    settings: TrainSettings, source: SampleSource, rank: int, world: int, step: int
) -> Batch:
    """This process's share of the samples of a step, augmented and stacked: a pure function of its
    arguments."""
    samples = source.batch(step) if world == 1 else source.batch(step, slice(rank, None, world))
    rngs = [
        np.random.default_rng((settings.seed, step, index))
        for index in range(rank, settings.clips_per_step, world)
    ]
    return collate(
        [
            augment(sample, rng, settings.dropout, settings.pairs_per_clip)
            for sample, rng in zip(samples, rngs, strict=True)
        ]
    )
