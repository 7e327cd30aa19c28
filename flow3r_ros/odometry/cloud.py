"""Clouds and the bounded voxel map.

A pixel becomes a point when it is confident, does not move, and does not lie on a depth edge (where
interpolated depth hangs between two surfaces). The map keeps one running mean per voxel in flat
arrays sorted by a packed voxel key, so insertion is a merge of two sorted lists; over capacity the
least recently seen voxels go.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.lie import apply
from flow3r_ros.types import Bool, Estimate, Float32, UInt8

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


def worth_showing(estimate: Estimate, min_confidence: float, edge_ratio: float) -> Bool:
    """Pixels worth a point, bool `[h, w]`: confident, not moving, not on a depth edge."""
    return np.asarray(
        (estimate.confidence >= min_confidence)
        & ~estimate.moving
        & ~depth_edges(estimate.depth, edge_ratio)
    )


def select_points(
    estimate: Estimate, min_confidence: float, edge_ratio: float
) -> tuple[Float32, UInt8, Float32]:
    """Points of one estimate worth showing: xyz float32 `[n, 3]` in the optical frame, rgb uint8
    `[n, 3]`, confidence float32 `[n]`."""
    keep = worth_showing(estimate, min_confidence, edge_ratio)
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

    def insert(self, estimate: Estimate, min_confidence: float, edge_ratio: float) -> None:
        """Add an estimate's points; voxels it sees count as seen now."""
        xyz, rgb, confidence = select_points(estimate, min_confidence, edge_ratio)
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
