"""Settings of a training run: the YAML files in `config/train/`."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, field_validator

from flow3r_ros.config import Settings
from flow3r_ros.errors import ConfigError
from flow3r_ros.mappings import first_fault, read_mapping
from flow3r_ros.paths import shared_files
from flow3r_ros.training.data_config import DataSettings


class LossWeights(Settings):
    """What each loss of `training.losses` counts."""

    recipe: Literal["official", "relative"] = Field(
        "official",
        description="official: the authors' flow penalty and camera loss; relative: Charbonnier "
        "flow and poses relative to the motion",
    )
    point: float = Field(1.0, ge=0, description="scale-invariant local points")
    pose: float = Field(0.1, ge=0, description="relative poses of all pairs")
    flow: float = Field(
        0.1,
        ge=0,
        description="factored flow; officially 0.1 where every clip is labelled, 0.01 in a mixture "
        "with unlabelled ones",
    )
    flow_kind: Literal["factored", "projective", "tracking"] = Field(
        "factored",
        description="what the flow loss looks at: the factored head, projected points, or matched "
        "features of both frames",
    )
    normal: float = Field(
        1.0, ge=0, description="surface normals; officially only of data sets with exact depth"
    )
    confidence: float = Field(0.1, ge=0, description="probability that a depth is right")


class EvidenceDropout(Settings):
    """Chances that a training sample hides evidence, so that the network also works without it, and
    how wrong the rest of it is."""

    everything: float = Field(0.08, ge=0, le=1, description="nothing is known, not even the rays")
    correspondence: float = Field(0.1, ge=0, le=1, description="only the rays are known")
    depth: float = Field(0.08, ge=0, le=1, description="no triangulated depth")
    poses: float = Field(0.05, ge=0, le=1, description="identity instead of the prior poses")
    focal_error: float = Field(
        0.0, ge=0, le=0.3, description="relative 1-sigma of the focal length that evidence assumes"
    )
    depth_error: float = Field(
        0.0, ge=0, le=1, description="relative 1-sigma of smooth errors of triangulated depth"
    )


class Optimisation(Settings):
    """AdamW (.9, .95): linear warm-up, constant, decay to zero at the end."""

    learning_rate: float = Field(1e-3, gt=0, description="peak learning rate")
    trunk_factor: float = Field(
        0.2,
        ge=0,
        le=1,
        description="learning rate of the convolutional trunk relative to the rest; 0 = frozen",
    )
    freeze_to_stride_8: bool = Field(True, description="keep the trunk's finest part as pretrained")
    weight_decay: float = Field(
        0.02, ge=0, description="of matrices and kernels; biases, norms and tokens have none"
    )
    warmup_steps: int = Field(100, ge=0)
    decay_share: float = Field(
        0.4,
        ge=0,
        le=1,
        description="share of the steps, at the end, over which the rate falls to zero",
    )
    decay: Literal["cosine", "linear"] = Field("cosine", description="how it falls")
    clip_norm: float = Field(1.0, gt=0, description="gradient norm limit")
    skip_above: float = Field(
        20.0, gt=0, description="a step whose loss is larger is skipped and counted"
    )
    ema: float = Field(
        0.99,
        ge=0,
        lt=1,
        description="decay of the averaged weights, which are what is saved and validated",
    )


class Adapters(Settings):
    """Low-rank adapters: what is learned in place of the transformer's matrices; merged into them
    at export."""

    rank: int = Field(16, ge=1, description="of the learned change of every matrix")
    alpha: float = Field(16.0, gt=0, description="the change counts alpha / rank")
    parts: tuple[
        Literal["encoder", "decoder", "point_decoder", "conf_decoder", "camera_decoder"], ...
    ] = Field(
        ("decoder", "point_decoder", "camera_decoder"),
        min_length=1,
        description="stacks of blocks that get adapters",
    )
    layers: tuple[Literal["attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"], ...] = Field(
        ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"),
        min_length=1,
        description="matrices of a block that get adapters",
    )


class TrainSettings(Settings):
    """Everything about one run."""

    start_from: str = Field(
        "nano",
        description="`nano`: a fresh small network; otherwise a model folder: a name under models/ "
        "or a path",
    )
    imagenet: bool = Field(
        True, description="start a fresh network's trunk from EfficientNet-Lite0's ImageNet weights"
    )
    name: str = Field("flow3r_nano", description="name in the manifest of the exported folder")
    seed: int = Field(42, ge=0)
    steps: int = Field(2000, ge=1)
    clips_per_step: int = Field(6, ge=1)
    pairs_per_clip: int = Field(
        1, ge=1, description="flow pairs of a clip and step, chosen among the labelled ones"
    )
    threads: int = Field(0, ge=0, description="CPU threads, 0 = all")
    loader_threads: int = Field(
        1, ge=1, le=64, description="threads that make batches ahead of the step"
    )
    precision: Literal["32-true", "bf16-mixed"] = Field(
        "bf16-mixed", description="Lightning Fabric precision"
    )
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        description="several processes: every one holds the network (ddp, auto), or each a share "
        "of it (fsdp)",
    )
    activation_checkpointing: bool = Field(
        False,
        description="recompute transformer blocks in the backward pass: less memory, more time",
    )
    train_only: tuple[str, ...] = Field(
        (),
        description="parameters that learn, by name or pattern (`flow_head`, `decoder.*.mlp`); "
        "empty = all, or adapters alone",
    )
    adapters: Adapters | None = Field(
        None,
        description="low-rank adapters; everything else that `train_only` does not name is frozen",
    )
    checkpoint_every: int = Field(200, ge=1, description="steps between checkpoints")
    keep_checkpoints: int = Field(2, ge=1, description="newest checkpoints kept")
    validate_every: int = Field(
        0, ge=0, description="steps between validations, 0 = only at the end"
    )
    validation_clips: int = Field(32, ge=0, description="held-out clips of a validation")
    only_if_better: bool = Field(
        False,
        description="export only if the held-out flow error of every recording fell; else say so "
        "and fail",
    )
    log_every: int = Field(10, ge=1, description="steps between rows of metrics.csv")
    data: DataSettings = DataSettings()
    loss: LossWeights = Field(
        default_factory=LossWeights, description="`official`, or what differs from it"
    )
    dropout: EvidenceDropout = EvidenceDropout()
    optimisation: Optimisation = Optimisation()

    @field_validator("loss", mode="before")
    @classmethod
    def _named_loss(cls, value: Any) -> Any:
        """`loss: official` is short for its weights."""
        return {"recipe": value} if isinstance(value, str) else value


def load_train_settings(path: Path) -> TrainSettings:
    """Read a training YAML; a path such as `config/train/nano.yaml` that is not here is looked for
    among the installed files. Raises ConfigError naming the file and the key."""
    cure = "start from config/train/nano.yaml"
    if not path.exists() and not path.is_absolute():
        path = next(iter(shared_files(str(path))), path)
    try:
        return TrainSettings.model_validate(read_mapping(path, ConfigError, cure))
    except ValidationError as error:
        raise ConfigError(f"{path}: {first_fault(error)}", cure) from error
