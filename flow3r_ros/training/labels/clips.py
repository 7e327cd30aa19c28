"""What training data is made of: a clip of frames, with depth and poses where somebody measured
them, and flow labels between them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.types import Camera, Float32, Float64, UInt8


@dataclass(frozen=True)
class Clip:
    """Consecutive chosen frames of one source, all of one size.

    `key` is the content address; `rgb` uint8 `[N, H, W, 3]`; `stamps_ns` int64 `[N]`; `camera` fits
    H x W (`estimated` when nobody knows it); `depth` float32 `[N, H, W]` metres along z, NaN =
    invalid; `poses` float64 `[N, 4, 4]` camera-to-world.
    """

    key: str
    source: str
    rgb: UInt8
    stamps_ns: NDArray[np.int64]
    camera: Camera
    depth: Float32 | None = None
    poses: Float64 | None = None

    def __len__(self) -> int:
        return int(self.rgb.shape[0])


@dataclass(frozen=True)
class FlowLabel:
    """What a teacher says about one ordered pair of frames.

    `displacement` float32 `[h, w, 2]` pixels of the h x w grid, from the first frame to the second;
    `covisibility` and `confidence` float32 `[h, w]` in [0, 1]; `reason` is empty when the pair is
    usable, else why the teacher refused it (snake case); `disagreed` the share of the pixels
    covisible to the first of two teachers that were dropped because the second says otherwise.
    """

    displacement: Float32
    covisibility: Float32
    confidence: Float32
    reason: str = ""
    disagreed: float = 0.0
