"""Features of faint texture: what a keyframe keeps where the lens is a guess.

An odometry through a guessed lens loses its way sooner, and its pieces are joined by places alone,
so that those of little texture count as well.
"""

from __future__ import annotations

import cv2
import numpy as np

from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float32

SIZE = 0.7
"""of the tracking image's, at which features are looked for: at half of it a door with scratches
shows 41 matches with itself 25 s later, here 82, at full size 108 for twice the time"""
FEATURES, CONTRAST = 800, 0.01
"""how many features, and the contrast they need: a quarter of what `relocalisation.describe` asks
for"""


def describe_faint(view: View) -> tuple[Float32, Float32]:
    """SIFT features of a view: pixels `[N, 2]` of its tracking image, descriptors `[N, 128]`; some
    40 ms."""
    gray = view.tracking
    size = (round(SIZE * gray.shape[1]), round(SIZE * gray.shape[0]))
    mask = None
    if view.ignored is not None:
        counts = (~view.ignored).view(np.uint8)
        mask = cv2.resize(counts, size, interpolation=cv2.INTER_NEAREST)
    small = cv2.resize(gray, size, interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT.create(FEATURES, contrastThreshold=CONTRAST)
    keypoints, found = sift.detectAndCompute(small, mask)
    ratio = np.array([gray.shape[1] / size[0], gray.shape[0] / size[1]], np.float32)
    pixels = np.array([point.pt for point in keypoints], np.float32).reshape(-1, 2)
    descriptors = np.empty((0, 128), np.float32) if found is None else np.asarray(found, np.float32)
    half = np.float32(0.5)
    return np.asarray((pixels + half) * ratio - half), descriptors
