"""Image size and resampling in front of the network (reference section 12): aspect kept, sides
multiples of the patch, never cropped."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import cv2
import numpy as np

from flow3r_ros.types import Float32, UInt8


def network_size(width: int, height: int, pixel_limit: int, patch: int = 14) -> tuple[int, int]:
    """(width, height) an image is resized to: multiples of `patch`, about its aspect ratio, at most
    `pixel_limit` pixels."""
    scale = math.sqrt(pixel_limit / (width * height))
    columns, rows = round(width * scale / patch), round(height * scale / patch)
    while columns * rows * patch**2 > pixel_limit:
        if columns / max(rows, 1) > width / height:
            columns -= 1
        else:
            rows -= 1
    return patch * max(1, columns), patch * max(1, rows)


def resize(rgb: UInt8, size: tuple[int, int], filter_: Literal["area", "lanczos"]) -> UInt8:
    """`rgb [H, W, 3]` resampled to `size` (width, height) with antialiasing; `lanczos` follows
    Pillow, which the authors use."""
    height, width = rgb.shape[:2]
    if (width, height) == size:
        return np.ascontiguousarray(rgb)
    if filter_ == "lanczos":
        across = _rounded(
            np.einsum(
                "ow,hwc->hoc", _lanczos(width, size[0]), rgb.astype(np.float32), optimize=True
            )
        )
        return _rounded(
            np.einsum(
                "oh,hwc->owc", _lanczos(height, size[1]), across.astype(np.float32), optimize=True
            )
        )
    shrinks = size[0] <= width and size[1] <= height
    return np.asarray(
        cv2.resize(rgb, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR),
        np.uint8,
    )


@lru_cache(maxsize=8)
def _lanczos(source: int, target: int) -> Float32:
    """Row-normalised Lanczos-3 weights `[target, source]`, stretched when shrinking, cut off where
    Pillow cuts them."""
    scale = source / target
    stretch = max(scale, 1.0)
    centre = (np.arange(target) + 0.5) * scale
    first = np.maximum((centre - 3 * stretch + 0.5).astype(int), 0)
    last = np.minimum((centre + 3 * stretch + 0.5).astype(int), source)
    index = np.arange(source)
    x = (index[None] - centre[:, None] + 0.5) / stretch
    weights = np.where(np.abs(x) < 3, np.sinc(x) * np.sinc(x / 3), 0.0)
    weights[(index[None] < first[:, None]) | (index[None] >= last[:, None])] = 0.0
    return np.asarray(weights / weights.sum(axis=1, keepdims=True), np.float32)


def _rounded(values: Float32) -> UInt8:
    return np.asarray(np.clip(np.floor(values + 0.5), 0, 255), np.uint8)
