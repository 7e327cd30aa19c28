"""Small networks, model folders and frames for the tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from flow3r_ros.network.catalog import InputSpec, Manifest, ModelFolder
from flow3r_ros.network.checkpoint import save_model_folder
from flow3r_ros.network.config import (
    DecoderConfig,
    EncoderConfig,
    EvidenceConfig,
    FineHeadConfig,
    Flow3rConfig,
    FlowHeadConfig,
    HeadDecoderConfig,
)
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.outputs import EvidenceInput
from flow3r_ros.types import Evidence, Frame, Window

ROWS, COLUMNS = 42, 56


def tiny_config(
    evidence: bool = False,
    convolutional: bool = False,
    base: str = "none",
    fine: bool = False,
    shallow: bool = False,
) -> Flow3rConfig:
    """A network of some 100 000 parameters; `shallow` has as few blocks as there can be."""
    head = HeadDecoderConfig(width=32, blocks=4, heads=2, out=24)
    return Flow3rConfig(
        name="tiny",
        encoder=EncoderConfig(
            width=32,
            blocks=1,
            heads=2,
            layer_scale=1.0,
            rope_base=None,
            image_size=56,
            convolutional_patch_embedding="efficientnet_lite0" if convolutional else None,
        ),
        decoder=DecoderConfig(
            width=32, blocks=2 if shallow else 4, heads=2, layer_scale=0.5, qk_norm=True
        ),
        point_decoder=head,
        conf_decoder=head.model_copy(update={"blocks": 1}) if shallow else head,
        camera_decoder=head,
        flow_head=FlowHeadConfig(features=8, level_channels=(8, 8, 16, 16), base=base),  # type: ignore[arg-type]
        evidence=EvidenceConfig(width=8, skip_width=8) if evidence else None,
        fine_head=FineHeadConfig(widths=(12, 8, 8)) if fine else None,
        initialisation="scratch" if evidence else "official",
    )


def tiny_model(seed: int = 0, **options: object) -> Flow3r:
    """A tiny network whose outputs depend on everything: every parameter is random."""
    torch.manual_seed(seed)
    model = Flow3r(tiny_config(**options))  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model.eval()


def tiny_folder(path: Path, **options: object) -> ModelFolder:
    """A model folder with a tiny network."""
    manifest = Manifest(
        name=path.name,
        source="a test",
        license="Apache-2.0",
        parameters=0,
        input=InputSpec(resolution=(COLUMNS, ROWS), window=4),
    )
    return save_model_folder(path, tiny_model(**options), manifest, replace=True)


def images(
    frames: int, rows: int = ROWS, columns: int = COLUMNS, batch: int = 1, seed: int = 0
) -> torch.Tensor:
    """Random images `[batch, frames, 3, rows, columns]` in [0, 1]."""
    return torch.rand(
        batch, frames, 3, rows, columns, generator=torch.Generator().manual_seed(seed)
    )


def evidence(
    frames: int, rows: int = ROWS, columns: int = COLUMNS, batch: int = 1
) -> EvidenceInput:
    """Random evidence with pinhole rays."""
    generator = torch.Generator().manual_seed(7)
    planes = 0.3 * torch.randn(batch, frames, 10, rows // 2, columns // 2, generator=generator)
    x = (torch.arange(columns // 2) * 2 + 0.5 - (columns - 1) / 2) / columns
    y = (torch.arange(rows // 2) * 2 + 0.5 - (rows - 1) / 2) / columns
    planes[:, :, 0], planes[:, :, 1] = x[None, :], y[:, None]
    planes[:, :, 3] = planes[:, :, 3].abs().clamp(0, 1)
    poses = torch.eye(4).repeat(batch, frames, 1, 1)
    poses[..., :3, 3] = 0.1 * torch.randn(batch, frames, 3, generator=generator)
    return EvidenceInput(planes, poses)


def frame(id_: int, width: int = 160, height: int = 120) -> Frame:
    """A frame of smooth noise that depends on its id only."""
    coarse = np.random.default_rng(id_).integers(
        0, 255, (height // 20, width // 20, 3), dtype=np.uint8
    )
    return Frame(
        id=id_, stamp_ns=id_ * 100_000_000, rgb=np.kron(coarse, np.ones((20, 20, 1), np.uint8))
    )


def window(
    ids: list[int],
    wanted: list[int],
    pairs: tuple[tuple[int, int], ...] = (),
    with_evidence: float | None = None,
) -> Window:
    """A window of test frames; `with_evidence` is the evidence's scale."""
    given = None
    if with_evidence is not None:
        tensors = evidence(len(ids))
        given = Evidence(
            tensors.planes[0].numpy(), tensors.poses[0].double().numpy(), with_evidence
        )
    return Window(tuple(frame(id_) for id_ in ids), tuple(wanted), given, pairs)
