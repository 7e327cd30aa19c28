"""Clouds and the bounded voxel map.

A pixel becomes a point when its depth is sure enough to have one, does not move, does not lie on a
depth edge (where interpolated depth hangs between two surfaces), is not alone at its depth and not
on a surface seen so flatly that a small error of depth moves it far. The map keeps one running mean
per voxel in flat arrays sorted by a packed voxel key, so insertion is a merge of two sorted lists;
over capacity the least recently seen voxels go.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import apply
from flow3r_ros.types import Bool, Camera, Estimate, Float32, UInt8

FLATTEST = 0.06
"""cosine between a surface's normal and the way of sight below which it gives no points: 3.4 deg
above it, where an error of a tenth of a pixel moves a point by one to two pixels' width"""
ALONE = 6
"""of the 24 pixels around it a point needs this many at its depth; the corner of a surface has 8"""
SAME_DEPTH = 6.0
"""pixels' widths within which two depths are the same: 80 degrees of slope from pixel to pixel"""
_BITS = 21
_OFFSET = 1 << (_BITS - 1)


def log_depth(depth: Float32) -> Float32:
    """Logarithm of a depth map `[h, w]`, NaN where there is none: equal ratios of depth are equal
    differences."""
    valid = np.isfinite(depth) & (depth > 0)
    log = np.log(np.where(valid, depth, 1.0)).astype(np.float32)
    log[~valid] = np.nan
    return log


def depth_edges(log: Float32, ratio: float) -> Bool:
    """True where the depth of `log_depth` jumps by more than `ratio` of itself within 3x3 pixels,
    or there is none nearby; bool `[h, w]`."""
    known, kernel = _without_nan(log), np.ones((3, 3), dtype=np.uint8)
    jump = cv2.dilate(known, kernel) - cv2.erode(known, kernel)
    return np.asarray((jump > np.log1p(ratio)) | np.isnan(log))


def alone(log: Float32, camera: Camera) -> Bool:
    """True where fewer than `ALONE` of the 5x5 pixels around lie at the depth of a pixel of
    `log_depth` `[h, w]` of `camera`, or there is none; bool `[h, w]`."""
    near = np.float32(SAME_DEPTH / camera.fx)
    count = np.zeros(log.shape, np.uint8)
    for row, column in _HALF_AROUND:  # what is near to one is near to the other
        this, other = _shifted(row), _shifted(-row)
        left, right = _shifted(column), _shifted(-column)
        apart = cv2.absdiff(log[this, left], log[other, right])
        same = (apart < near).view(np.uint8)
        count[this, left] += same
        count[other, right] += same
    return np.asarray((count < ALONE) | np.isnan(log))


_HALF_AROUND = [(0, 1), (0, 2), *((row, column) for row in (1, 2) for column in range(-2, 3))]
"""half of the 24 steps to the pixels around one; the others are their opposites"""


def _shifted(step: int) -> slice:
    """The part of an axis that is still inside after so many steps ahead."""
    return slice(max(0, -step), min(0, -step) or None)


def seen_flatly(log: Float32, camera: Camera) -> Bool:
    """True where the normal of the surface of `log_depth` is almost at right angles to the way of
    sight (`FLATTEST`), bool `[h, w]`.

    With q = log z the normal is (-fx dq/du, -fy dq/dv, 1 + x fx dq/du + y fy dq/dv), whose product
    with the ray (x, y, 1) is 1.
    """
    smooth = cv2.blur(_without_nan(log), (3, 3))
    across = cv2.Sobel(smooth, cv2.CV_32F, 1, 0, ksize=1, scale=0.5 * camera.fx)
    down = cv2.Sobel(smooth, cv2.CV_32F, 0, 1, ksize=1, scale=0.5 * camera.fy)
    x = ((np.arange(camera.width) - camera.cx) / camera.fx).astype(np.float32)
    y = ((np.arange(camera.height) - camera.cy) / camera.fy).astype(np.float32)[:, None]
    along = 1 + x * across + y * down
    normal2 = across * across + down * down + along * along
    return np.asarray(normal2 * (1 + x * x + y * y) > np.float32(1 / FLATTEST**2))


def _without_nan(log: Float32) -> Float32:
    known = log.copy()
    cv2.patchNaNs(known, 0.0)
    return known


def worth_showing(estimate: Estimate, edge_ratio: float) -> Bool:
    """Pixels worth a point, bool `[h, w]`: with a depth (what is not sure enough has none), not
    moving, not on a depth edge, not alone, not seen flatly."""
    log, camera = log_depth(estimate.depth), estimate.camera
    refused = estimate.moving | depth_edges(log, edge_ratio)
    return np.asarray(~(refused | alone(log, camera) | seen_flatly(log, camera)))


def select_points(estimate: Estimate, edge_ratio: float) -> tuple[Float32, UInt8, Float32]:
    """Points of one estimate worth showing: xyz float32 `[n, 3]` in the optical frame, rgb uint8
    `[n, 3]`, confidence float32 `[n]`."""
    keep = np.flatnonzero(worth_showing(estimate, edge_ratio))  # faster than a mask
    return (
        estimate.points().reshape(-1, 3).take(keep, axis=0),
        estimate.rgb.reshape(-1, 3).take(keep, axis=0),
        estimate.confidence.reshape(-1).take(keep),
    )


class VoxelMap:
    """One mean point, colour and confidence per voxel in the odometry world; never more than
    `max_voxels`.

    `voxel` is the edge length in odometry units.
    """

    def __init__(self, voxel: float, max_voxels: int) -> None:
        self.voxel = voxel
        self.max_voxels = max_voxels
        self._keys: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._sums = np.empty((0, 7), dtype=np.float32)
        self._counts = np.empty(0, dtype=np.float32)
        self._seen: NDArray[np.int64] = np.empty(0, dtype=np.int64)
        self._time = 0

    def __len__(self) -> int:
        return len(self._keys)

    def insert(self, estimate: Estimate, edge_ratio: float) -> None:
        """Add an estimate's points; voxels it sees count as seen now."""
        xyz, rgb, confidence = select_points(estimate, edge_ratio)
        if len(xyz) == 0:
            return
        self._time += 1
        world = apply(estimate.T_odom_cam, xyz.astype(np.float64))
        cells = np.floor(world / self.voxel).astype(np.int64) + _OFFSET
        near = np.logical_and.reduce([(axis >= 0) & (axis < 2 * _OFFSET) for axis in cells.T])
        if not near.all():
            cells, world, rgb, confidence = cells[near], world[near], rgb[near], confidence[near]
        keys = (cells[:, 0] << (2 * _BITS)) | (cells[:, 1] << _BITS) | cells[:, 2]
        unique, inverse = np.unique(keys, return_inverse=True)
        values = np.concatenate([world, rgb.astype(np.float64), confidence[:, None]], axis=1)
        counts = np.bincount(inverse, minlength=len(unique))
        means = (
            np.stack(
                [np.bincount(inverse, values[:, i], minlength=len(unique)) for i in range(7)],
                axis=1,
            )
            / counts[:, None]
        )
        self._merge(unique, means.astype(np.float32))

    def points(self) -> tuple[Float32, UInt8, Float32]:
        """The map: xyz float32 `[n, 3]` in the odometry world, rgb uint8 `[n, 3]`, confidence
        float32 `[n]`."""
        means: Float32 = (self._sums / np.maximum(self._counts, 1.0)[:, None]).astype(np.float32)
        return means[:, :3], np.clip(np.rint(means[:, 3:6]), 0, 255).astype(np.uint8), means[:, 6]

    def _merge(self, keys: NDArray[np.int64], means: Float32) -> None:
        where = np.searchsorted(self._keys, keys)
        known = np.zeros(len(keys), dtype=np.bool_)
        inside = where < len(self._keys)
        known[inside] = self._keys[where[inside]] == keys[inside]
        old, new = where[known], ~known
        fade = np.where(self._counts[old] >= 50, 49.0 / 50.0, 1.0).astype(np.float32)
        self._sums[old] = self._sums[old] * fade[:, None] + means[known]
        self._counts[old] = self._counts[old] * fade + 1.0
        self._seen[old] = self._time
        self._keys = np.insert(self._keys, where[new], keys[new])
        self._sums = np.insert(self._sums, where[new], means[new], axis=0)
        self._counts = np.insert(self._counts, where[new], 1.0)
        self._seen = np.insert(self._seen, where[new], self._time)
        if len(self._keys) > self.max_voxels:
            self._evict()

    def _evict(self) -> None:
        """Drop the least recently seen tenth, so that eviction is not paid every frame."""
        target = max(int(self.max_voxels * 0.9), 1)
        order = np.argsort(-self._seen, kind="stable")[:target]
        keep = np.sort(order)
        self._keys, self._sums, self._counts, self._seen = (
            self._keys[keep],
            self._sums[keep],
            self._counts[keep],
            self._seen[keep],
        )
