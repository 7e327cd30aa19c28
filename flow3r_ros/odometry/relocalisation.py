"""Where in what is remembered is this? Keyframes recognised by appearance and their features.

Candidates are ranked by a thumbnail; features matched with the best
of them give a pose by its depth, or without. What is found is a proposal: tracking from
that keyframe and verification decide.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import cv2
import numpy as np

from flow3r_ros.geometry.camera_pose import (
    DepthPoints,
    PoseFit,
    fit_camera_pose,
    judge_camera_pose,
    pose_without_depth,
)
from flow3r_ros.odometry.corners import HELD_BACK, Reference
from flow3r_ros.odometry.views import View, rays_through
from flow3r_ros.types import Float32, Float64, UInt8

FEATURES = 500
"""features of a picture, at half the size of the tracking image"""
CANDIDATES = 8
"""keyframes whose features are compared, the most alike ones"""
RATIO = 0.8
"""distance to the best match over that to the second best (Lowe 2004)"""
MIN_INLIERS = 18
"""matches that a pose must explain"""
MATCH_SIGMA = 1.5
"""pixels: 1-sigma of a matched feature"""
UNSURE = 0.2
"""sigma of a feature's inverse depth at least, as a share of the median: features sit on edges"""
THUMBNAIL = (40, 30)
"""pixels of a thumbnail"""


@dataclass(frozen=True)
class Features:
    """SIFT features (Lowe 2004) of a picture: `pixels` float32 `[N, 2]` in its tracking image,
    `descriptors` float32 `[N, 128]`, and a normalised thumbnail."""

    pixels: Float32
    descriptors: Float32
    thumbnail: Float32


@dataclass(frozen=True)
class Found:
    """A proposal: the keyframe, the `fit` of the view's pose in it, and `judged` `[M]` the
    distances in sigmas of matches that were held back from the fit."""

    reference: Reference
    fit: PoseFit
    judged: Float64

    @property
    def speaking(self) -> int:
        """Held-back matches that speak for the pose."""
        return int(np.count_nonzero(self.judged < 3.0))


def describe(view: View) -> Features:
    """Features of a view; some 30 ms."""
    gray = view.tracking
    half = cv2.resize(gray, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
    mask = None
    if view.ignored is not None:
        counts = (~view.ignored).view(np.uint8)
        mask = cv2.resize(counts, half.shape[::-1], interpolation=cv2.INTER_NEAREST)
    keypoints, found = cv2.SIFT.create(FEATURES).detectAndCompute(half, mask)
    pixels = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2) * 2.0 + 0.5
    descriptors = np.empty((0, 128), np.float32) if found is None else np.asarray(found, np.float32)
    return Features(pixels.astype(np.float32), descriptors, _thumbnail(gray))


class Relocaliser:
    """The last `capacity` keyframes with their features, and the last frame before tracking broke;
    owns them."""

    def __init__(self, capacity: int) -> None:
        self._keyframes: deque[tuple[Reference, Features]] = deque(maxlen=capacity)
        self._latest: tuple[Reference, Features] | None = None

    def clear(self) -> None:
        """Forget every place."""
        self._keyframes.clear()
        self._latest = None

    def remember(self, reference: Reference, features: Features) -> None:
        """Keep a keyframe's place, without its full image, which would be half of its memory."""
        self._keyframes.append((_without_image(reference), features))

    def remember_latest(self, frame: Reference) -> None:
        """Keep the last frame that was tracked, until the next one that is kept so."""
        self._latest = _without_image(frame), describe(frame.view)

    def find(self, view: View) -> Found | None:
        """The remembered place that a view shows most likely; None where nothing is alike."""
        places = [
            place
            for place in (*self._keyframes, *([self._latest] if self._latest else []))
            if place[0].view.tracking.shape == view.tracking.shape and len(place[1].pixels)
        ]
        here = describe(view)
        if not places or len(here.pixels) < MIN_INLIERS:
            return None
        small = here.thumbnail
        alike = [
            max(float(np.sum(features.thumbnail * each)) for each in (small, small[::-1, ::-1]))
            for _, features in places
        ]
        order = np.argsort(-np.array(alike), kind="stable")[:CANDIDATES]
        best: Found | None = None
        for reference, features in (places[index] for index in {*order, len(places) - 1}):
            found = self._pose(_seen_through(reference, view), features, view, here)
            if found is not None and (best is None or found.speaking > best.speaking):
                best = found
        return best

    def _pose(
        self, reference: Reference, features: Features, view: View, here: Features
    ) -> Found | None:
        """What the matches with one keyframe say; None with too few of them."""
        pairs = cv2.BFMatcher(cv2.NORM_L2).knnMatch(here.descriptors, features.descriptors, k=2)
        good = [
            pair[0]
            for pair in pairs
            if len(pair) == 2 and pair[0].distance < RATIO * pair[1].distance
        ]
        if len(good) < MIN_INLIERS:
            return None
        mine = np.array([here.pixels[match.queryIdx] for match in good])
        there = np.array([features.pixels[match.trainIdx] for match in good])
        points = _points(reference, there)
        observed = view.straightened(mine)
        used = np.arange(len(good)) % HELD_BACK != 0
        starts = [np.eye(4), pose_without_depth(points.only(used), observed[used], view.lens)]
        fits = [
            fit_camera_pose(points.only(used), observed[used], view.lens, start, MATCH_SIGMA, 12)
            for start in starts
            if start is not None
        ]
        fit = max(fits, key=lambda each: each.inliers)
        judged = judge_camera_pose(
            points.only(~used), observed[~used], view.lens, fit.T, MATCH_SIGMA
        )
        return Found(reference, fit, judged)


def _without_image(reference: Reference) -> Reference:
    frame = replace(reference.view.frame, rgb=np.empty((0, 0, 3), np.uint8), ignored=None)
    return replace(reference, view=replace(reference.view, frame=frame))


def _seen_through(reference: Reference, view: View) -> Reference:
    """A keyframe through the lens as it is known now, with `view`."""
    known, before = reference.points, reference.view
    rays = rays_through(known.rays, (before.focal, before.bend), (view.focal, view.bend))
    return replace(
        reference,
        view=before.with_lens(view.focal, view.bend),
        points=replace(known, rays=rays),
    )


def _points(reference: Reference, pixels: Float32) -> DepthPoints:
    """Points of a keyframe at pixels `[N, 2]`, with what its depth map knows of them."""
    inverse, sigma = reference.depth.at(pixels, reference.view.ratio)
    known = np.isfinite(inverse) & (inverse > 0) & np.isfinite(sigma)
    typical = float(np.median(inverse[known])) if known.any() else 1.0
    return DepthPoints(
        reference.view.rays(pixels),
        np.where(known, inverse, typical),
        np.where(known, np.maximum(sigma, UNSURE * typical), 2.0 * typical),
    )


def _thumbnail(gray: UInt8) -> Float32:
    small = cv2.resize(gray, THUMBNAIL, interpolation=cv2.INTER_AREA).astype(np.float32)
    small -= small.mean()
    return np.asarray(small / max(float(np.linalg.norm(small)), 1e-6), np.float32)
