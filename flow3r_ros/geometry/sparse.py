"""Sparse feature matches for gaps that dense flow cannot bridge, and the flow field they
suggest."""

from __future__ import annotations

import cv2
import numpy as np

from flow3r_ros.types import Float32, Float64, UInt8

RATIO = 0.8
"""share of the second nearest descriptor's distance that a match stays below (Lowe 2004)"""


def match_features(gray_a: UInt8, gray_b: UInt8) -> Float32:
    """SIFT matches `[n, 4]` = (x_a, y_a, x_b, y_b) in pixels that pass ratio test, cross check and
    one epipolar geometry.

    Empty `[0, 4]` when there is nothing to match. Deterministic.
    """
    sift = cv2.SIFT.create(nfeatures=1200, contrastThreshold=0.02)
    keys_a, words_a = sift.detectAndCompute(gray_a, np.empty(0, dtype=np.uint8))
    keys_b, words_b = sift.detectAndCompute(gray_b, np.empty(0, dtype=np.uint8))
    none = np.zeros((0, 4), dtype=np.float32)
    if len(keys_a) < 8 or len(keys_b) < 8:
        return none
    pairs = _mutual_matches(
        np.asarray(words_a, dtype=np.float32), np.asarray(words_b, dtype=np.float32)
    )
    matches = np.array(
        [(*keys_a[i].pt, *keys_b[j].pt) for i, j in pairs], dtype=np.float32
    ).reshape(-1, 4)
    matches = np.unique(matches, axis=0)
    if len(matches) < 8:
        return none
    try:
        _, mask = cv2.findFundamentalMat(
            matches[:, :2], matches[:, 2:], cv2.USAC_MAGSAC, 1.5, 0.999, 1000
        )
    except cv2.error:  # degenerate matches: no model at all
        return none
    return matches[mask.ravel() > 0] if mask is not None else none


def _mutual_matches(words_a: Float32, words_b: Float32) -> list[tuple[int, int]]:
    """Index pairs of mutual nearest descriptors that are clearly nearer than the second nearest."""
    squared = (
        np.sum(words_a**2, axis=1)[:, None]
        + np.sum(words_b**2, axis=1)[None, :]
        - 2.0 * words_a @ words_b.T
    )
    nearest = np.argmin(squared, axis=1)
    back = np.argmin(squared, axis=0)
    two = np.partition(squared, 1, axis=1)[:, :2]
    good = (back[nearest] == np.arange(len(words_a))) & (two[:, 0] < RATIO**2 * two[:, 1])
    return [(int(i), int(nearest[i])) for i in np.flatnonzero(good)]


def flow_through_matches(matches: Float32, width: int, height: int, cell: int = 8) -> Float32:
    """Smooth flow float32 `[height, width, 2]` in pixels through matches `[n, 4]`: a global affine
    plus interpolated residuals."""
    source, flow = (
        matches[:, :2].astype(np.float64),
        (matches[:, 2:] - matches[:, :2]).astype(np.float64),
    )
    design = np.concatenate([source, np.ones((len(source), 1))], axis=1)
    affine = _robust_affine(design, flow)
    residual = flow - design @ affine
    columns, rows = np.meshgrid(np.arange(0, width + cell, cell), np.arange(0, height + cell, cell))
    nodes = np.stack([columns.ravel(), rows.ravel(), np.ones(columns.size)], axis=1)
    squared = np.sum((nodes[:, None, :2] - source[None]) ** 2, axis=2)
    near = np.partition(squared, min(3, len(source) - 1), axis=1)[:, min(3, len(source) - 1)][
        :, None
    ]
    weight = np.exp(-squared / (near + cell**2))
    field = nodes @ affine + weight @ residual / weight.sum(axis=1, keepdims=True)
    coarse = field.reshape(*columns.shape, 2).astype(np.float32)
    x, y = np.meshgrid(
        np.arange(width, dtype=np.float32) / cell, np.arange(height, dtype=np.float32) / cell
    )
    return np.asarray(cv2.remap(coarse, x, y, cv2.INTER_LINEAR), dtype=np.float32)


def _robust_affine(design: Float64, flow: Float64) -> Float64:
    """Affine `[3, 2]` from image position to flow, Cauchy-reweighted, weakly pulled towards a pure
    shift."""
    weight = np.ones(len(design))
    ridge = np.diag([1e2, 1e2, 0.0])
    affine: Float64 = np.zeros((3, 2))
    for _ in range(8):
        affine = np.asarray(
            np.linalg.solve(
                design.T @ (weight[:, None] * design) + ridge + 1e-9 * np.eye(3),
                design.T @ (weight[:, None] * flow),
            )
        )
        error = np.linalg.norm(flow - design @ affine, axis=1)
        weight = 1.0 / (1.0 + (error / (2.0 * np.median(error) + 1.0)) ** 2)
    return affine
