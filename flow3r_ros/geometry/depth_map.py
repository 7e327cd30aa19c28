"""Depth of every pixel of one camera: inverse depth with its sigma, and a depth map seen by another
lens at the same place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import undistortion_maps
from flow3r_ros.types import Camera, Float32


@dataclass(frozen=True)
class DepthMap:
    """Inverse depth and its 1-sigma, float32 `[h, w]`."""

    inverse: Float32
    sigma: Float32

    def depth(self) -> Float32:
        """Depth float32 `[h, w]`, NaN where unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.inverse > 0, 1.0 / self.inverse, np.nan).astype(np.float32)

    def confidence(self) -> Float32:
        """Share in [0, 1] that falls with the relative sigma: 1 at 0, one half at 25 %, 0 where
        unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            relative = self.sigma / self.inverse
            return np.where(
                np.isfinite(relative) & (self.inverse > 0),
                1.0 / (1.0 + (relative / 0.25) ** 2),
                0.0,
            ).astype(np.float32)


def unknown(height: int, width: int) -> DepthMap:
    """A map that knows nothing."""
    return DepthMap(
        np.full((height, width), np.nan, dtype=np.float32),
        np.full((height, width), np.inf, dtype=np.float32),
    )


def resample_depth(depth: Float32, source: Camera, target: Camera) -> Float32:
    """Depth `[h, w]` of one lens (distorted or not) seen by a pinhole at the same place: nearest
    neighbours, so that edges stay edges; NaN outside, no pixel is invented.

    Raises:
        InputError: the depth map is not of the size its intrinsics are for.
    """
    if depth.shape != (source.height, source.width):
        size = f"{depth.shape[1]}x{depth.shape[0]}"
        raise InputError(
            f"depth of {size} pixels has intrinsics for {source.width}x{source.height}",
            "give the depth camera's own",
        )
    if source == target:
        return depth.astype(np.float32)
    if source.distortion:
        u, v = undistortion_maps(source, target, cv2.CV_32FC1)
    else:
        columns = (np.arange(target.width) - target.cx) / target.fx * source.fx + source.cx
        rows = (np.arange(target.height) - target.cy) / target.fy * source.fy + source.cy
        u, v = (grid.astype(np.float32) for grid in np.meshgrid(columns, rows))
    nan = float("nan")
    sampled = cv2.remap(
        depth.astype(np.float32),
        u,
        v,
        cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(nan, nan, nan, nan),
    )
    return np.asarray(sampled, np.float32)
