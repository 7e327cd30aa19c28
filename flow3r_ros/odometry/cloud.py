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

from flow3r_ros.geometry.camera import rays
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


def depth_edges(depth: Float32, ratio: float) -> Bool:
    """True where the depth jumps by more than `ratio` of itself within 3x3 pixels, or is invalid
    nearby; bool `[h, w]`."""
    valid = np.isfinite(depth) & (depth > 0)
    log = np.log(np.where(valid, depth, 1.0)).astype(np.float32)
    kernel = np.ones((3, 3), dtype=np.uint8)
    jump = cv2.dilate(log, kernel) - cv2.erode(log, kernel)
    return np.asarray((jump > np.log1p(ratio)) | ~valid)


def alone(depth: Float32, camera: Camera) -> Bool:
    """True where fewer than `ALONE` of the 5x5 pixels around lie at a pixel's depth `[h, w]` of
    `camera`, or depth is invalid; bool `[h, w]`."""
    valid = np.isfinite(depth) & (depth > 0)
    log = np.where(valid, np.log(np.where(valid, depth, 1.0)), np.inf).astype(np.float32)
    padded = np.pad(log, 2, constant_values=np.inf)
    rows, columns = depth.shape
    count = np.full(depth.shape, -1, np.int8)
    near = np.float32(SAME_DEPTH / camera.fx)
    with np.errstate(invalid="ignore"):
        for row in range(5):
            for column in range(5):
                other = padded[row : row + rows, column : column + columns]
                count += np.abs(other - log) < near
    return np.asarray((count < ALONE) | ~valid)


def seen_flatly(depth: Float32, camera: Camera) -> Bool:
    """True where the surface's normal is almost at right angles to the way of sight
    (`FLATTEST`), bool `[h, w]`.

    With q = log z the normal is (-fx dq/du, -fy dq/dv, 1 + x fx dq/du + y fy dq/dv), whose product
    with the ray (x, y, 1) is 1.
    """
    valid = np.isfinite(depth) & (depth > 0)
    log = cv2.blur(np.log(np.where(valid, depth, 1.0)).astype(np.float32), (3, 3))
    across = camera.fx * cv2.Sobel(log, cv2.CV_32F, 1, 0, ksize=1, scale=0.5)
    down = camera.fy * cv2.Sobel(log, cv2.CV_32F, 0, 1, ksize=1, scale=0.5)
    ray = rays(camera)
    along = 1 + ray[..., 0] * across + ray[..., 1] * down
    normal2 = across * across + down * down + along * along
    ray2 = 1 + np.sum(ray * ray, axis=-1)
    return np.asarray(normal2 * ray2 > 1 / FLATTEST**2)


def worth_showing(estimate: Estimate, edge_ratio: float) -> Bool:
    """Pixels worth a point, bool `[h, w]`: with a depth (what is not sure enough has none), not
    moving, not on a depth edge, not alone, not seen flatly."""
    return np.asarray(
        ~estimate.moving
        & ~depth_edges(estimate.depth, edge_ratio)
        & ~alone(estimate.depth, estimate.camera)
        & ~seen_flatly(estimate.depth, estimate.camera)
    )


def select_points(estimate: Estimate, edge_ratio: float) -> tuple[Float32, UInt8, Float32]:
    """Points of one estimate worth showing: xyz float32 `[n, 3]` in the optical frame, rgb uint8
    `[n, 3]`, confidence float32 `[n]`."""
    keep = worth_showing(estimate, edge_ratio)
    return estimate.points()[keep], estimate.rgb[keep], estimate.confidence[keep]


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
        near = np.all((cells >= 0) & (cells < 2 * _OFFSET), axis=1)
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
