"""One training sample, whatever it came from (synthetic scene, bag, video), and the batch of
tensors the loop works on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.camera import rays as rays_of
from flow3r_ros.geometry.evidence import CHANNELS
from flow3r_ros.geometry.flow import ndc_from_pixels, pixel_grid
from flow3r_ros.network.outputs import EvidenceInput
from flow3r_ros.training.losses import Truth, normalise
from flow3r_ros.training.train_config import EvidenceDropout
from flow3r_ros.types import Camera, Evidence, Float32, Float64, UInt8


@dataclass(frozen=True)
class Sample:
    """N frames on the network's grid H x W with whatever is known about them.

    `rgb` uint8 `[N, H, W, 3]`; `camera` the pinhole of the grid; `pairs` int64 `[S, 2]` (source,
    target positions) with `flow` float32 `[S, H, W, 2]` pixels and `covisibility` float32 `[S, H,
    W]` in [0, 1]; `depth` float32 `[N, H, W]` (NaN = unknown) and `poses` float64 `[N, 4, 4]`
    camera-to-world where labelled, in one unit; `evidence` from the full-size pictures, half the
    grid.
    """

    rgb: UInt8
    camera: Camera
    pairs: NDArray[np.int64]
    flow: Float32
    covisibility: Float32
    depth: Float32 | None = None
    poses: Float64 | None = None
    evidence: Evidence | None = None
    name: str = ""


class Batch(NamedTuple):
    """B samples of one shape as tensors; `truth` covers only the samples in `labelled`."""

    images: Tensor
    """float32 `[B, N, 3, H, W]` in [0, 1]"""
    evidence: EvidenceInput
    pairs: Tensor
    """int64 `[B, S, 2]`"""
    flow: Tensor
    """absolute NDC positions in the target, float32 `[B, S, H, W, 2]`"""
    covisibility: Tensor
    """float32 `[B, S, H, W]`"""
    labelled: Tensor
    """int64 `[L]`, samples with depth and poses"""
    truth: Truth
    """unit-size geometry of those `[L, N, ...]`"""


def collate(samples: Sequence[Sample]) -> Batch:
    """Stack samples of one shape. Raises TrainingError where frames, grids or pairs differ."""
    shapes = {(sample.rgb.shape, sample.pairs.shape) for sample in samples}
    if len(shapes) != 1:
        raise TrainingError(
            f"samples of different shapes in one batch: {sorted(shapes)}",
            "give every step one grid and frame count",
        )
    frames, height, width = samples[0].rgb.shape[:3]
    labelled = [
        index
        for index, sample in enumerate(samples)
        if sample.depth is not None and sample.poses is not None
    ]
    grid = pixel_grid(width, height)
    images = (
        torch.from_numpy(np.stack([sample.rgb for sample in samples]))
        .permute(0, 1, 4, 2, 3)
        .float()
        / 255.0
    )
    flow = np.stack(
        [ndc_from_pixels(sample.flow + grid, width, height) for sample in samples]
    ).astype(np.float32)
    return Batch(
        images=images,
        evidence=_stack_evidence(samples, frames, height, width),
        pairs=torch.from_numpy(np.stack([sample.pairs for sample in samples]).astype(np.int64)),
        flow=torch.from_numpy(flow),
        covisibility=torch.from_numpy(
            np.stack([sample.covisibility for sample in samples]).astype(np.float32)
        ),
        labelled=torch.tensor(labelled, dtype=torch.int64),
        truth=_stack_truth([samples[index] for index in labelled], (frames, height, width)),
    )


def to_device(batch: Batch, device: torch.device) -> Batch:
    """The batch on a device, whatever its nesting."""

    def move(value: Any) -> Any:
        if isinstance(value, Tensor):
            return value.to(device, non_blocking=True)
        return type(value)(*(move(item) for item in value))

    moved: Batch = move(batch)
    return moved


class SampleSource(Protocol):
    """Where samples come from: the same step always gives the same samples, all of one shape."""

    def batch(self, step: int, part: slice = ...) -> list[Sample]:
        """The samples of a step, or only some of them (what one of several processes trains on)."""
        ...


def augment(
    sample: Sample, rng: np.random.Generator, dropout: EvidenceDropout, pairs: int
) -> Sample:
    """Change colours of a whole clip, hide evidence at random and keep `pairs` of its pairs at
    random; geometry stays."""
    kept = rng.permutation(len(sample.pairs))[:pairs]
    image = sample.rgb.astype(np.float32)
    gain = np.exp(rng.normal(0, 0.15) + rng.normal(0, 0.05, 3)).astype(np.float32)
    contrast, middle = np.float32(np.exp(rng.normal(0, 0.15))), image.mean()
    image = ((image - middle) * contrast + middle) * gain
    if rng.random() < 0.15:
        image = np.repeat(image.mean(axis=-1, keepdims=True), 3, axis=-1)
    return replace(
        sample,
        rgb=np.clip(image, 0, 255).astype(np.uint8),
        pairs=sample.pairs[kept],
        flow=sample.flow[kept],
        covisibility=sample.covisibility[kept],
        evidence=_hide(sample.evidence, rng, dropout),
    )


def _hide(
    evidence: Evidence | None, rng: np.random.Generator, dropout: EvidenceDropout
) -> Evidence | None:
    """Evidence with parts of it missing (layout: `geometry.evidence`: rays, log-depth, its
    confidence, then correspondences)."""
    draw = rng.random()
    if evidence is None or draw < dropout.everything:
        return None
    planes, poses = evidence.planes.copy(), evidence.poses
    _disturb(planes, rng, dropout)
    if draw < dropout.everything + dropout.correspondence:
        planes[:, 2:] = 0
        poses = np.broadcast_to(np.eye(4), poses.shape)
    elif draw < dropout.everything + dropout.correspondence + dropout.depth:
        planes[:, 2:4] = 0
    elif draw < dropout.everything + dropout.correspondence + dropout.depth + dropout.poses:
        poses = np.broadcast_to(np.eye(4), poses.shape)
    return Evidence(planes, np.ascontiguousarray(poses), evidence.scale)


def _disturb(planes: Float32, rng: np.random.Generator, dropout: EvidenceDropout) -> None:
    """Make evidence as wrong as a real camera's, in place: one focal length for the whole clip, and
    depth off by smooth fields of a strength that differs from clip to clip."""
    if dropout.focal_error:
        planes[:, [0, 1, 4, 5, 7, 8]] *= np.float32(1 + rng.normal(0, dropout.focal_error))
    if dropout.depth_error:
        strength = abs(rng.normal(0, dropout.depth_error))
        for plane, known in zip(planes[:, 2], planes[:, 3] > 0, strict=True):
            coarse = rng.normal(0, strength, (4, 5)).astype(np.float32)
            size = (plane.shape[1], plane.shape[0])
            plane += known * cv2.resize(coarse, size, interpolation=cv2.INTER_CUBIC)


def _stack_evidence(
    samples: Sequence[Sample], frames: int, height: int, width: int
) -> EvidenceInput:
    """Planes and prior poses; a sample without evidence gets zeros and identities, which the
    network reads as "nothing known"."""
    planes = np.zeros((len(samples), frames, CHANNELS, height // 2, width // 2), np.float32)
    poses = np.tile(np.eye(4, dtype=np.float32), (len(samples), frames, 1, 1))
    for index, sample in enumerate(samples):
        if sample.evidence is not None:
            planes[index], poses[index] = sample.evidence.planes, sample.evidence.poses
    return EvidenceInput(torch.from_numpy(planes), torch.from_numpy(poses))


def _stack_truth(samples: list[Sample], shape: tuple[int, int, int]) -> Truth:
    if not samples:
        frames, height, width = shape
        return normalise(
            torch.zeros(0, *shape),
            torch.zeros(0, frames, height, width, 2),
            torch.zeros(0, frames, 4, 4),
        )
    depth = np.stack([sample.depth for sample in samples if sample.depth is not None]).astype(
        np.float32
    )
    poses = np.stack([sample.poses for sample in samples if sample.poses is not None])
    rays = np.stack(
        [np.broadcast_to(rays_of(sample.camera), (*sample.rgb.shape[:3], 2)) for sample in samples]
    )
    relative = np.linalg.inv(poses[:, :1]) @ poses
    return normalise(
        torch.from_numpy(depth),
        torch.from_numpy(rays.copy()),
        torch.from_numpy(relative.astype(np.float32)),
    )
