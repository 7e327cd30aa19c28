"""Where in what is remembered is this? Keyframes recognised by appearance and their features.

Candidates are ranked by a thumbnail; features (ORB: Rublee et al., ICCV 2011) matched with the best
of them give a pose by RANSAC against the keyframe's depth. What is found is a proposal: tracking from
that keyframe and verification decide.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.lie import invert, rigid
from flow3r_ros.odometry.keyframes import rays_of
from flow3r_ros.odometry.tracking import Reference
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float32, Float64, UInt8

FEATURES = 700
"""features of a picture"""
CANDIDATES = 8
"""keyframes whose features are compared, the most alike ones"""
RATIO = 0.8
"""distance to the best match over that to the second best (Lowe 2004)"""
MIN_INLIERS = 18
"""matches that a pose must explain"""
REPROJECTION_PX = 4.0
"""pixels within which a match is explained"""
THUMBNAIL = (40, 30)
"""pixels of a thumbnail"""


@dataclass(frozen=True)
class Place:
    """A remembered keyframe: its `reference`, feature positions `[N, 2]` in its tracking image, their
    descriptors, and a normalised thumbnail."""

    reference: Reference
    pixels: Float32
    descriptors: UInt8
    thumbnail: Float32


class Relocaliser:
    """The last `capacity` places; owns them."""

    def __init__(self, capacity: int) -> None:
        self._orb = cv2.ORB.create(FEATURES)
        self._matcher = cv2.BFMatcher(cv2.NORM_HAMMING)
        self._places: deque[Place] = deque(maxlen=capacity)

    def clear(self) -> None:
        """Forget every place."""
        self._places.clear()

    def remember(self, reference: Reference) -> None:
        """Keep a keyframe's place."""
        pixels, descriptors = self._features(reference.view)
        self._places.append(
            Place(reference, pixels, descriptors, _thumbnail(reference.view.tracking))
        )

    def find(self, view: View) -> tuple[Reference, Float64] | None:
        """The place that a view shows and the view's pose `[4, 4]` in that keyframe; None where
        nothing is recognised."""
        places = [
            place
            for place in self._places
            if place.reference.view.tracking.shape == view.tracking.shape and len(place.pixels)
        ]
        pixels, descriptors = self._features(view)
        if not places or len(pixels) < MIN_INLIERS:
            return None
        small = _thumbnail(view.tracking)
        alike = [max(float(np.sum(place.thumbnail * each)) for each in (small, small[::-1, ::-1]))
                 for place in places]  # fmt: skip
        order = np.argsort(-np.array(alike), kind="stable")[:CANDIDATES]
        best: tuple[int, Reference, Float64] | None = None
        for index in order:
            found = self._pose(places[index], view, pixels, descriptors)
            if found is not None and (best is None or found[0] > best[0]):
                best = found[0], places[index].reference, found[1]
        return None if best is None else best[1:]

    def _features(self, view: View) -> tuple[Float32, UInt8]:
        keypoints, descriptors = self._orb.detectAndCompute(view.tracking, None)
        if descriptors is None:
            return np.empty((0, 2), np.float32), np.empty((0, 32), np.uint8)
        return np.array([point.pt for point in keypoints], np.float32), np.asarray(descriptors)

    def _pose(
        self, place: Place, view: View, pixels: Float32, descriptors: UInt8
    ) -> tuple[int, Float64] | None:
        """Matches explained and the view's pose in the keyframe."""
        pairs = self._matcher.knnMatch(descriptors, place.descriptors, k=2)
        good = [
            pair[0]
            for pair in pairs
            if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance
        ]
        if len(good) < MIN_INLIERS:
            return None
        here = np.array([pixels[match.queryIdx] for match in good])
        there = np.array([place.pixels[match.trainIdx] for match in good])
        key = place.reference.view
        inverse, sigma = place.reference.depth.at(there, key.ratio)
        known = np.isfinite(inverse) & (inverse > 0) & (sigma < 0.5 * inverse)
        if np.count_nonzero(known) < MIN_INLIERS:
            return None
        lens = key.lens
        points = (rays_of(lens, there[known]) / inverse[known, None]).astype(np.float64)
        done, rotation, translation, inliers = cv2.solvePnPRansac(
            points, here[known].astype(np.float64), view.lens.matrix, None,
            iterationsCount=200, reprojectionError=REPROJECTION_PX, flags=cv2.SOLVEPNP_EPNP,
        )  # fmt: skip
        if not done or inliers is None or len(inliers) < MIN_INLIERS:
            return None
        T_cam_ref = rigid(cv2.Rodrigues(rotation)[0], translation[:, 0])
        return len(inliers), invert(T_cam_ref)


def _thumbnail(gray: UInt8) -> Float32:
    small = cv2.resize(gray, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)
