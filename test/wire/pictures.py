"""A smooth picture and messages of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np


def scene(height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth colours, so that chroma subsampling and demosaicing lose little."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([60 + 120 * x, 200 - 100 * y, 40 + 90 * x * y], axis=-1).astype(np.uint8)


def message(
    data: np.ndarray, encoding: str, width: int, pad: int = 0, bigendian: bool = False
) -> Any:
    """`sensor_msgs/Image` of rows, each padded by `pad` bytes."""
    rows = data.reshape(data.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=7)
    return SimpleNamespace(
        height=data.shape[0],
        width=width,
        encoding=encoding,
        is_bigendian=int(bigendian),
        step=padded.shape[1],
        data=padded.tobytes(),
    )
