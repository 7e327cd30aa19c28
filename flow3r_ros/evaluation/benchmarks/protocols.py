"""Which benchmarks there are, and how each is read, sampled and scored.

Flow3r's evaluation code is unreleased, and its paper is silent on frames per sequence, sequence
lists and pseudo ground truth; sampling follows the `evaluation` branch of pi3, which it builds on,
and what even that leaves open is said in `protocol`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from flow3r_ros.datasets.pseudo import epic_kitchens, kinetics
from flow3r_ros.datasets.sequence import Sequence
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.benchmarks.selections import (
    bonn,
    co3d,
    euroc,
    kitti_odometry,
    neural_rgbd,
    scannet,
    seven_scenes,
    sintel,
    tum_dynamics,
)

ALIASES = {
    "kinetics700": "kinetics",
    "epickitchens": "epic",
    "mpisintel": "sintel",
    "bonnrgbddynamic": "bonn",
    "co3dv2": "co3d",
    "neuralrgbd": "nrgbd",
    "sevenscenes": "7scenes",
    "kittiodometry": "kitti",
    "eurocmav": "euroc",
}
"""what they are called elsewhere, letters and digits only"""


@dataclass(frozen=True)
class Benchmark:
    """How one benchmark is read, sampled and scored.

    `way` is `window` (the sampled frames go through the network at once: angular pose and point-map
    protocols) or `odometry` (they go through the odometry in order: trajectory protocol).
    """

    load: Callable[[Path], list[Sequence]]
    way: Literal["window", "odometry"]
    stride: int
    limit: int
    random: bool
    protocol: str


BENCHMARKS: dict[str, Benchmark] = {
    "kinetics": Benchmark(
        kinetics,
        "odometry",
        1,
        64,
        False,
        "pseudo ground truth: VIDEO.tum that you bring, so scores are agreement with "
        "it; first 64 frames (paper silent)",
    ),
    "epic": Benchmark(
        epic_kitchens,
        "odometry",
        3,
        64,
        False,
        "pseudo ground truth: EPIC Fields (COLMAP); 64 frames at stride 3 (paper silent)",
    ),
    "sintel": Benchmark(
        sintel, "odometry", 1, 50, False, "14 scenes, all frames, final pass (pi3)"
    ),
    "bonn": Benchmark(bonn, "odometry", 1, 110, False, "5 sequences, frames 30 to 140 (MonST3R)"),
    "tum_dynamics": Benchmark(
        tum_dynamics, "odometry", 3, 90, False, "8 sequences, 90 frames at stride 3 (pi3)"
    ),
    "kitti": Benchmark(
        kitti_odometry, "odometry", 1, 100_000, False, "sequences 00 to 10, every frame"
    ),
    "euroc": Benchmark(euroc, "odometry", 1, 100_000, False, "cam0, every frame with a true pose"),
    "scannet": Benchmark(
        scannet,
        "window",
        3,
        10,
        True,
        "10 of the first 90 frames at stride 3, seed 42 (paper silent; pi3 scores ATE here)",
    ),
    "co3d": Benchmark(co3d, "window", 1, 10, True, "10 random frames a sequence, seed 42 (pi3)"),
    "7scenes": Benchmark(
        seven_scenes, "window", 200, 10, False, "test sequences at stride 200 (pi3, sparse)"
    ),
    "nrgbd": Benchmark(neural_rgbd, "window", 500, 10, False, "scenes at stride 500 (pi3, sparse)"),
}


def find_benchmark(name: str) -> tuple[str, Benchmark]:
    """A benchmark by its short name or by what it is called elsewhere (`CO3Dv2`, `Kinetics-700`,
    `TUM-dynamics`, ...).

    Raises:
        EvaluationError: there is none of that name.
    """
    letters = re.sub(r"[^a-z0-9]", "", name.lower())
    short = ALIASES.get(letters) or next(
        (known for known in BENCHMARKS if known.replace("_", "") == letters), None
    )
    if short is None:
        raise EvaluationError(f"unknown benchmark {name!r}", f"use one of {', '.join(BENCHMARKS)}")
    return short, BENCHMARKS[short]


def sample(sequence: Sequence, benchmark: Benchmark) -> tuple[Sequence, list[str]]:
    """The frames the protocol asks for; of a sequence too short for its stride, frames evenly
    spread over it, which is said."""
    count = len(sequence.shots)
    indices = list(range(0, count, benchmark.stride))
    notes = []
    if len(indices) < 3:
        indices = np.unique(np.linspace(0, count - 1, benchmark.limit).round().astype(int)).tolist()
        notes = [
            f"{len(indices)} of its {count} frames: too short for stride "
            f"{benchmark.stride}, not to be compared with published rows"
        ]
    if benchmark.random and len(indices) > benchmark.limit:
        pool = indices[:90] if benchmark.stride > 1 else indices
        indices = sorted(
            int(i) for i in np.random.default_rng(42).choice(pool, benchmark.limit, replace=False)
        )
    return sequence.only(indices[: benchmark.limit]), notes
