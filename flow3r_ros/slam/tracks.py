"""Points seen in many keyframes: what refinement measures with.

Features at full resolution are matched between pictures up to `NEAR` apart and at doubled
distances, between places that look alike, and across loops: a point that is found again after many
pictures is what keeps rotation from drifting, whatever the links between neighbours measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.slam.places import Places, square_rooted
from flow3r_ros.types import Float32, UInt8

FEATURES, MORE, CONTRAST = 2000, 6000, 0.02
"""SIFT features of a picture (Lowe 2004), of one of few pictures, and the contrast they need, half
of OpenCV's: where a picture is rich the strongest are kept anyway, where it is not the fainter ones
hold it. Of 24 pictures around a table that were begun from scratch, the way was off by 3.6 % with
2000 each and by .04 % with 6000"""
NEAR = 8
"""pictures apart up to which every pair is matched; beyond it 16, 32, 64, ..."""
ALIKE = 4
"""further pictures that each is matched with, those that look most alike"""
RATIO = 0.8
"""distance to the best match over that to the second best"""


@dataclass(frozen=True)
class PictureFeatures:
    """SIFT features of a picture: `pixels` float32 `[N, 2]`, `descriptors` uint8 `[N, 128]`."""

    pixels: Float32
    descriptors: UInt8

    @cached_property
    def rooted(self) -> Float32:
        """Descriptors as unit vectors, square-rooted (Arandjelovic and Zisserman, CVPR 2012)."""
        return square_rooted(self.descriptors)


def features_of(gray: UInt8, few: bool = False) -> PictureFeatures:
    """Features of a gray picture at its own size; more of one of `few` pictures."""
    most = MORE if few else FEATURES
    sift = cv2.SIFT.create(most, contrastThreshold=CONTRAST)
    keypoints, found = sift.detectAndCompute(gray, None)
    pixels = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)
    descriptors = np.empty((0, 128)) if found is None else np.clip(np.rint(found), 0, 255)
    return PictureFeatures(pixels[:most], descriptors[:most].astype(np.uint8))


def matched(first: PictureFeatures, second: PictureFeatures) -> NDArray[np.uint32]:
    """Rows `[M, 2]` of features that are each other's best match, clearly."""
    if min(len(first.pixels), len(second.pixels)) < 2:
        return np.empty((0, 2), np.uint32)
    likeness = first.rooted @ second.rooted.T
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
    pictures: Sequence[PictureFeatures],
    posed: Sequence[int],
    loops: Iterable[tuple[int, int]],
) -> list[tuple[int, int]]:
    """Which pictures of a sequence are compared, the earlier one first.

    Args:
        posed: rows of those whose pose is known, in order: they are compared among themselves as
            if the others were not there, too.
        loops: pairs of rows that are known to show one place.
    """
    count = len(pictures)
    pairs = _near(range(count)) | _near(posed)
    places = Places()
    for at, each in enumerate(pictures):
        places.add(at, each.descriptors)
    for at, each in enumerate(pictures):
        far = {other for other in range(count) if abs(other - at) > NEAR}
        alike = places.alike(each.descriptors, far, ALIKE)
        pairs |= {(min(at, other), max(at, other)) for other in alike}
    for first, second in loops:
        for a in range(max(first - 1, 0), min(first + 2, count)):
            for b in range(max(second - 1, 0), min(second + 2, count)):
                if a != b:
                    pairs.add((min(a, b), max(a, b)))
    return sorted(pairs)


def _near(rows: Sequence[int]) -> set[tuple[int, int]]:
    """Pairs of rows up to `NEAR` places apart, and at doubled distances."""
    steps = [*range(1, NEAR + 1)]
    while 2 * steps[-1] < len(rows):
        steps.append(2 * steps[-1])
    return {(rows[at], rows[at + step]) for step in steps for at in range(len(rows) - step)}
