"""Depth of every pixel of one camera: inverse depth with its sigma, and a depth map seen by another
lens at the same place."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import undistortion_maps
from flow3r_ros.types import Bool, Camera, Float32, Float64

HALF_SIGMA = 0.15
"""relative 1-sigma of a depth at which its confidence is one half: a Gaussian error of 15 % is
within 10 % with probability 0.495; also what the bundled networks were trained on as evidence"""


@dataclass(frozen=True)
class DepthMap:
    """Inverse depth and its 1-sigma, float32 `[h, w]` in 1 / unit; NaN (and sigma NaN or inf) where
    unknown."""

    inverse: Float32
    sigma: Float32

    def depth(self) -> Float32:
        """Depth float32 `[h, w]`, NaN where unknown."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.inverse > 0, 1.0 / self.inverse, np.nan).astype(np.float32)

    def confidence(self) -> Float32:
        """Confidence float32 `[h, w]` in [0, 1], the only law of the house: about the probability
        that the depth is right within 10 %, 1 / (1 + (s / `HALF_SIGMA`)^2) of the relative 1-sigma
        s; 0 where unknown."""
        with np.errstate(invalid="ignore", over="ignore"):
            relative = self.sigma * self.depth()
            share = 1.0 / (1.0 + (relative / HALF_SIGMA) ** 2)
        return np.asarray(np.nan_to_num(share, nan=0.0), dtype=np.float32)

    def where(self, keep: Bool) -> DepthMap:
        """The same map, unknown outside `keep` bool `[h, w]`."""
        return DepthMap(
            np.where(keep, self.inverse, np.float32(np.nan)),
            np.where(keep, self.sigma, np.float32(np.inf)),
        )

    def every_second(self) -> DepthMap:
        """The map of every second pixel, from the first one on."""
        return DepthMap(self.inverse[::2, ::2], self.sigma[::2, ::2])

    def resized(self, width: int, height: int) -> DepthMap:
        """The nearest values on another grid."""
        size = (width, height)
        return DepthMap(
            np.asarray(cv2.resize(self.inverse, size, interpolation=cv2.INTER_NEAREST), np.float32),
            np.asarray(cv2.resize(self.sigma, size, interpolation=cv2.INTER_NEAREST), np.float32),
        )

    def at(self, pixels: Float32, ratio: Float32) -> tuple[Float64, Float64]:
        """Inverse depth and sigma `[N]` at pixels `[N, 2]` of an image that is `ratio` `[2]` times
        as large; NaN and inf where unknown."""
        height, width = self.inverse.shape
        places = np.floor((pixels + 0.5) / ratio).astype(int)
        column, row = np.clip(places[:, 0], 0, width - 1), np.clip(places[:, 1], 0, height - 1)
        inverse, sigma = self.inverse[row, column], self.sigma[row, column]
        return inverse.astype(np.float64), sigma.astype(np.float64)


def relative_sigma(confidence: Float32) -> Float32:
    """Relative 1-sigma of depths whose confidence in (0, 1) is known: `DepthMap.confidence` the
    other way round."""
    return np.asarray(HALF_SIGMA * np.sqrt(1.0 / confidence - 1.0), np.float32)


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
    _check_size(depth, source)
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


def registered_depth(
    depth: Float32, source: Camera, target: Camera, offset: tuple[float, float, float]
) -> Float32:
    """Depth `[h, w]` of one pinhole as another one beside it sees it: every point is moved by
    `offset` (from the source's optical frame to the target's, same axes, unit of the depth) and
    falls on the nearest pixel; the nearest point wins, NaN where none falls.

    The target should have no more pixels than the source, or holes remain between points.

    Raises:
        InputError: the depth map is not of the size its intrinsics are for.
    """
    _check_size(depth, source)
    rows, columns = np.nonzero(np.isfinite(depth) & (depth > 0))
    z = depth[rows, columns].astype(np.float64)
    x = (columns - source.cx) / source.fx * z + offset[0]
    y = (rows - source.cy) / source.fy * z + offset[1]
    z = z + offset[2]
    u = np.rint(x / z * target.fx + target.cx).astype(np.int64)
    v = np.rint(y / z * target.fy + target.cy).astype(np.int64)
    inside = (z > 0) & (u >= 0) & (v >= 0) & (u < target.width) & (v < target.height)
    far_first = np.flatnonzero(inside)[np.argsort(-z[inside], kind="stable")]
    seen = np.full((target.height, target.width), np.nan, np.float32)
    seen[v[far_first], u[far_first]] = z[far_first]
    return seen


def _check_size(depth: Float32, source: Camera) -> None:
    if depth.shape != (source.height, source.width):
        size = f"{depth.shape[1]}x{depth.shape[0]}"
        raise InputError(
            f"depth of {size} pixels has intrinsics for {source.width}x{source.height}",
            "give the depth camera's own",
        )
