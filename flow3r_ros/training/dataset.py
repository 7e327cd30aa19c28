"""Clips of several sources as samples of one shape, mixed by weight.

Which clip, which frames, which pairs and which augmentation sample k of a run gets is a pure
function of (seed, k): a resumed run sees exactly what the interrupted one would have seen, and any
number of loader threads give the same samples.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.evidence import evidence_from_images
from flow3r_ros.training.augmentation import (
    EvidenceMaker,
    Example,
    fitting_window,
    mirror,
    reverse,
    to_sample,
)
from flow3r_ros.training.clip_sources import ClipSource
from flow3r_ros.training.labels.clips import FlowLabel
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.shards import ShardError
from flow3r_ros.types import Camera, Evidence, UInt8

ATTEMPTS = 20  # clips tried for one sample before the data counts as unusable


class Mixture:
    """Several sources, drawn by weight, as samples of one grid.

    Args:
        sources, weights: how often a sample comes from each; weights need not sum to one.
        seed: with the sample's number, decides everything.
        frames: least and most frames per sample (2..24), one number per step.
        grids: (w, h) the network sees, multiples of its patch; one per step.
        pairs: flow pairs per sample.
        augment: mirror, reverse and crop at random (up to 1.4x zoom).
        evidence: makes the evidence from the cropped full-size pictures; None = no evidence.
    """

    def __init__(
        self,
        sources: Sequence[ClipSource],
        weights: Sequence[float] | None = None,
        seed: int = 42,
        frames: tuple[int, int] = (2, 6),
        grids: Sequence[tuple[int, int]] = ((168, 126),),
        pairs: int = 4,
        augment: bool = True,
        evidence: EvidenceMaker | None = None,
    ) -> None:
        share = np.asarray(weights if weights is not None else np.ones(len(sources)), np.float64)
        if (
            len(sources) == 0
            or len(share) != len(sources)
            or not (share >= 0).all()
            or share.sum() <= 0
        ):
            raise TrainingError(
                "a mixture needs sources with non-negative weights, one each",
                "check the data settings",
            )
        if not 2 <= frames[0] <= frames[1] <= 24:
            raise TrainingError(
                f"frames per sample {frames} is outside 2..24", "check the data settings"
            )
        self.sources, self.share, self.seed = list(sources), share / share.sum(), seed
        self.frames, self.grids, self.pairs, self.augment, self._evidence = (
            frames,
            tuple(grids),
            pairs,
            augment,
            evidence,
        )
        self.skipped: Counter[str] = Counter()
        longest = min(int(source.lengths.max(initial=0)) for source in sources)
        if longest < frames[0]:
            raise TrainingError(
                f"the longest clip has {longest} frames, samples need {frames[0]}",
                "use fewer frames per sample",
            )
        self._most = min(frames[1], longest)
        self.epoch_length = int(sum(len(source.lengths) for source in sources))

    def batch(self, step: int, size: int, part: slice = slice(None)) -> list[Sample]:
        """The samples of one step, or a part of them, all with the same number of frames, pairs and
        grid."""
        rng = np.random.default_rng((self.seed, step, 0))
        frames = int(rng.integers(self.frames[0], self._most + 1))
        grid = self.grids[int(rng.integers(len(self.grids)))]
        return [self.sample(step * size + k, frames, grid) for k in range(size)[part]]

    def sample(self, number: int, frames: int, grid: tuple[int, int]) -> Sample:
        """Sample `number` of the run. Unreadable clips are counted in `skipped` and the next ones
        taken.

        Raises TrainingError when `ATTEMPTS` clips in a row give nothing.
        """
        rng = np.random.default_rng((self.seed, number, 1))
        epoch, position = divmod(number, self.epoch_length)
        tried = 0
        for following in range(self.epoch_length):
            source, index = self._clip(epoch, (position + following) % self.epoch_length)
            chosen = self._frames(self.sources[source], index, frames, rng)
            if chosen is None:
                continue
            tried += 1
            if tried > ATTEMPTS:
                break
            try:
                example = self.sources[source].read(index, chosen, rng, self.pairs)
            except ShardError:
                self.skipped["damaged"] += 1
                continue
            if not example.pairs and example.clip.depth is None:
                self.skipped["no_labels"] += 1
                continue
            return self._finish(_fill_pairs(example, self.pairs), grid, rng)
        raise TrainingError(
            f"{min(tried, ATTEMPTS)} clips in a row gave no sample ({dict(self.skipped)})",
            "label again, or look at the recordings",
        )

    def _clip(self, epoch: int, position: int) -> tuple[int, int]:
        source_of, index_of = epoch_order(
            self.seed, epoch, tuple(len(s.lengths) for s in self.sources), tuple(self.share)
        )
        return int(source_of[position]), int(index_of[position])

    def _frames(
        self, source: ClipSource, index: int, frames: int, rng: np.random.Generator
    ) -> list[int] | None:
        length = int(source.lengths[index])
        fitting = [stride for stride in source.strides() if (frames - 1) * stride < length]
        if not fitting:
            return None
        stride = int(rng.choice(fitting))
        start = int(rng.integers(length - (frames - 1) * stride))
        return [start + stride * k for k in range(frames)]

    def _finish(self, example: Example, grid: tuple[int, int], rng: np.random.Generator) -> Sample:
        zoom, across, down, flip, backward = 1.0, 0.5, 0.5, False, False
        if self.augment:
            zoom, across, down = (
                float(rng.uniform(1, 1.4)),
                float(rng.random()),
                float(rng.random()),
            )
            flip, backward = bool(rng.random() < 0.5), bool(rng.random() < 0.3)
        example = mirror(example) if flip else example
        example = reverse(example) if backward else example
        height, width = example.clip.rgb.shape[1:3]
        return to_sample(
            example, fitting_window(width, height, grid, zoom, across, down), grid, self._evidence
        )


@lru_cache(maxsize=4)
def epoch_order(
    seed: int, epoch: int, lengths: tuple[int, ...], share: tuple[float, ...]
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Source and clip of every position of an epoch: sources drawn by share, each source's clips
    shuffled and used evenly."""
    total = sum(lengths)
    rng = np.random.default_rng((seed, epoch, 2))
    source_of = rng.choice(len(lengths), size=total, p=np.asarray(share)).astype(np.int32)
    index_of = np.zeros(total, np.int64)
    for source, length in enumerate(lengths):
        here = np.flatnonzero(source_of == source)
        rounds = [rng.permutation(length) for _ in range(-(-len(here) // length) if length else 0)]
        index_of[here] = np.concatenate(rounds)[: len(here)] if rounds else 0
    return source_of, index_of


def whole_sample(
    example: Example, grid: tuple[int, int], pairs: int, evidence: EvidenceMaker | None
) -> Sample:
    """A sample of the largest centred part of the pictures, nothing drawn at random."""
    height, width = example.clip.rgb.shape[1:3]
    return to_sample(
        _fill_pairs(example, pairs),
        fitting_window(width, height, grid, 1.0, 0.5, 0.5),
        grid,
        evidence,
    )


def _fill_pairs(example: Example, pairs: int) -> Example:
    """Exactly `pairs` pairs: missing ones are (0, 1) with nothing covisible, so they weigh
    nothing."""
    missing = pairs - len(example.pairs)
    empty = np.zeros((2, 2), np.float32)
    blank = FlowLabel(np.zeros((2, 2, 2), np.float32), empty, empty)
    return replace(
        example,
        pairs=example.pairs + ((0, 1),) * missing,
        labels=example.labels + (blank,) * missing,
    )


def window_evidence(width: int = 336) -> EvidenceMaker:
    """Evidence from the pictures alone, as at run time: correspondences at `width` (of a 4:3
    image), one matcher per thread."""
    local = threading.local()

    def make(rgb: UInt8, camera: Camera, grid: tuple[int, int]) -> Evidence:
        if not hasattr(local, "matcher"):
            local.matcher = Matcher(width=width)
        matcher: Matcher = local.matcher
        return evidence_from_images(
            [matcher.prepare(image) for image in rgb], camera, matcher, grid
        )

    return make
