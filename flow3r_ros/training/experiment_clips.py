"""Clips of the controlled experiment: two frames of a room, small enough for a CPU, and how rows
draw from them.

The task is the smallest that has every part of the real one: one family of rooms, one lens, a
handheld path, nothing that moves by itself; pictures and flow on a grid of 70 x 56 pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.evidence import build_evidence
from flow3r_ros.training.checkpointing import write_safetensors
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scenes.renderer import render_clip
from flow3r_ros.training.scenes.shards import SceneShards, make_sample, pack
from flow3r_ros.types import Evidence

logger = logging.getLogger(__name__)

GRID = (70, 56)
"""width and height the network sees: about 64 pixels, multiples of its patch of 14"""
_FIELD_OF_VIEW = 70.0
_SPEED, _TURN = (0.015, 0.1), (4.0, 20.0)
"""translation (scene units) and rotation (degrees) between the two frames; with turns of 2 to 12
degrees the network confused the two too often to pass the rotation gate (docs/experiments.md)"""
_CLIPS_PER_SHARD = 24
_TOGETHER = 12
"""held-out clips of one forward: small ones cost less together"""


def room_clip(seed: int, textures: Literal["train", "held_out"]) -> Sample:
    """Two frames of a room with exact depth, poses and flow both ways; a function of its
    arguments."""
    rng = np.random.default_rng((seed, 41))
    clip = render_clip(
        seed,
        2,
        2 * GRID[0],
        2 * GRID[1],
        layout="room",
        motion="handheld",
        textures=textures,
        movers=0,
        noise=0.5,
        speed=float(np.exp(rng.uniform(*np.log(_SPEED)))),
        turn=float(np.deg2rad(rng.uniform(*_TURN))),
        field_of_view=_FIELD_OF_VIEW,
    )
    matcher = Matcher(width=2 * GRID[0])
    there = matcher.flow(matcher.prepare(clip.rgb[0]), matcher.prepare(clip.rgb[1]))
    evidence = build_evidence(
        clip.camera,
        np.tile(np.eye(4), (2, 1, 1)),
        [None, None],
        [None, there.reversed()],
        [there, None],
        GRID,
    )
    return make_sample(clip, GRID, [(0, 1), (1, 0)], evidence, f"{textures}:{seed}")


def rendered(folder: Path, first: int, clips: int, textures: Literal["train", "held_out"]) -> Path:
    """At least `clips` room clips as scene shards in `folder`, whose path is returned; shards that
    exist are kept. `first`: number of the first shard."""
    cv2.setNumThreads(1)
    for number in range(first, first + -(-clips // _CLIPS_PER_SHARD)):
        path = folder / f"scenes_{number:06d}.safetensors"
        if not path.exists():
            seeds = range(number * _CLIPS_PER_SHARD, (number + 1) * _CLIPS_PER_SHARD)
            write_safetensors(path, pack([room_clip(seed, textures) for seed in seeds]))
            logger.info("%s", path)
    return folder


def clips_of(folder: Path) -> list[Sample]:
    """All clips of a folder of scene shards in an order of chance, so that every part has clips of
    every grid."""
    shards = SceneShards([folder], 0, 1)
    found = [_without_answer(samples[0]) for samples in shards.all(len(shards))]
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


class OneGrid:
    """Each step: clips of one grid, half of them from `first` and half from `second` (all from
    `first` where `second` has none)."""

    def __init__(
        self, first: list[Sample], second: list[Sample], clips_per_step: int, seed: int
    ) -> None:
        self._first, self._second = first, second
        self._clips_per_step, self._seed = clips_per_step, seed

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
        """Up to `limit` clips, those of one grid together, at most `_TOGETHER`."""
        waiting: list[Sample] = []
        for (sample,) in self._clips.all(limit):
            if waiting and (len(waiting) == _TOGETHER or waiting[0].rgb.shape != sample.rgb.shape):
                yield waiting
                waiting = []
            waiting.append(_without_answer(sample))
        if waiting:
            yield waiting


def _without_answer(sample: Sample) -> Sample:
    assert sample.evidence is not None
    planes = sample.evidence.planes.copy()
    planes[:, 2:4] = 0
    return replace(sample, evidence=Evidence(planes, np.tile(np.eye(4), (len(planes), 1, 1))))
