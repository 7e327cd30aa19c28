"""The world of the node tests: a textured wall, and a camera that pans along it by whole pixels."""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from flow3r_ros.types import Camera, UInt8

WIDTH, HEIGHT = 320, 240
FOCAL = 300.0
DEPTH = 3.0
"""distance of the wall"""
PIXELS = 4
"""image motion per frame in pixels"""
STEP = PIXELS * DEPTH / FOCAL
"""camera motion per frame that goes with it"""


@cache
def _wall() -> UInt8:
    random = np.random.default_rng(7)
    texture = np.zeros((HEIGHT, 4000, 3), np.float32)
    for cell in (4, 12, 40):
        noise = random.uniform(0, 1, (HEIGHT // cell + 2, 4000 // cell + 2, 3)).astype(np.float32)
        texture += cv2.resize(noise, (4000, HEIGHT), interpolation=cv2.INTER_CUBIC)
    return np.clip(texture * 85, 0, 255).astype(np.uint8)


def picture(index: int, width: int = WIDTH, height: int = HEIGHT) -> UInt8:
    """RGB image number `index` of the pan; another size is the same view, resized."""
    start = index * PIXELS % (4000 - WIDTH)
    view = _wall()[:, start : start + WIDTH]
    return (
        view.copy()
        if (width, height) == (WIDTH, HEIGHT)
        else cv2.resize(view, (width, height), interpolation=cv2.INTER_AREA)
    )


def wall_camera(width: int = WIDTH, height: int = HEIGHT) -> Camera:
    """The calibrated pinhole of the pictures."""
    return Camera(
        width,
        height,
        FOCAL * width / WIDTH,
        FOCAL * height / HEIGHT,
        (width - 1) / 2,
        (height - 1) / 2,
    )
