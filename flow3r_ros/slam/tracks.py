"""Points seen in many keyframes: what refinement measures with.

Features at full resolution are matched between keyframes up to `NEAR` apart and at doubled
distances, between places that look alike, and across loops: a point that is found again after many
keyframes is what keeps rotation from drifting, whatever the links between neighbours measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.places import Places
from flow3r_ros.types import Float32, UInt8

FEATURES = 2000
"""SIFT features of a picture (Lowe 2004)"""
NEAR = 8
"""keyframes apart up to which every pair is matched; beyond it 16, 32, 64, ..."""
ALIKE = 4
"""further keyframes that each is matched with, those that look most alike"""
RATIO = 0.8
"""distance to the best match over that to the second best"""


@dataclass(frozen=True)
class PictureFeatures:
    """SIFT features of a picture: `pixels` float32 `[N, 2]`, `descriptors` unit vectors float32
    `[N, 128]`, square-rooted (Arandjelovic and Zisserman, CVPR 2012)."""

    pixels: Float32
    descriptors: Float32


def features_of(gray: UInt8) -> PictureFeatures:
    """Features of a gray picture at its own size."""
    keypoints, found = cv2.SIFT.create(FEATURES).detectAndCompute(gray, None)
    pixels = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)
    if found is None:
        return PictureFeatures(pixels, np.empty((0, 128), np.float32))
    values = np.asarray(found, np.float32)[:FEATURES]
    descriptors = np.sqrt(values / np.maximum(values.sum(axis=1, keepdims=True), 1.0))
    return PictureFeatures(pixels[:FEATURES], descriptors)


def matched(first: PictureFeatures, second: PictureFeatures) -> NDArray[np.uint32]:
    """Rows `[M, 2]` of features that are each other's best match, clearly."""
    if min(len(first.pixels), len(second.pixels)) < 2:
        return np.empty((0, 2), np.uint32)
    likeness = first.descriptors @ second.descriptors.T
    rows = np.arange(len(likeness))
    best = np.argmax(likeness, axis=1)
    back = np.argmax(likeness, axis=0)
    top = likeness[rows, best].copy()
    likeness[rows, best] = -1.0
    second_best = likeness.max(axis=1)
    # squared distances of unit vectors are 2 - 2 times their likeness
    clear = (1.0 - top) < RATIO**2 * (1.0 - second_best)
    kept = clear & (back[best] == rows)
    return np.stack([rows[kept], best[kept]], axis=1).astype(np.uint32)


def pairs_to_match(
    keyframes: Sequence[MapKeyframe], loops: Iterable[tuple[int, int]]
) -> list[tuple[int, int]]:
    """Which keyframes are compared: pairs of places in the sequence, the earlier one first; `loops`
    are pairs of them that are known to show one place."""
    count = len(keyframes)
    steps = [*range(1, NEAR + 1)]
    while 2 * steps[-1] < count:
        steps.append(2 * steps[-1])
    pairs = {(at, at + step) for step in steps for at in range(count - step)}
    places = Places()
    for at, keyframe in enumerate(keyframes):
        places.add(at, keyframe.descriptors)
    for at, keyframe in enumerate(keyframes):
        far = {other for other in range(count) if abs(other - at) > NEAR}
        pairs |= {
            (min(at, other), max(at, other))
            for other in places.alike(keyframe.descriptors, far, ALIKE)
        }
    for first, second in loops:
        for a in range(max(first - 1, 0), min(first + 2, count)):
            for b in range(max(second - 1, 0), min(second + 2, count)):
                if a != b:
                    pairs.add((min(a, b), max(a, b)))
    return sorted(pairs)
