"""Peak memory of a piece of work, measured in a process of its own, so that nothing that ran before
counts.

The recording it is measured on is a short one looped back and forth: as long as one likes, and its
motion stays continuous.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import cv2
import numpy as np

from flow3r_ros.bench.plane_scene import CAMERA, PlanePredictor, PlaneScene, plane_picture
from flow3r_ros.config import Config
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.offline.summary import peak_rss_mb
from flow3r_ros.types import UInt8

SMALL = scaled(CAMERA, 320, 240)
"""camera of the looped recording"""
MOMENTS = 60
"""different pictures of it"""


def peak_mb(work: Callable[..., object], *arguments: Any) -> float:
    """Peak resident memory (MB) of a fresh process that calls `work(*arguments)`, which must be a
    function of a module."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_peak_of, work, arguments).result()


def _peak_of(work: Callable[..., object], arguments: tuple[Any, ...]) -> float:
    work(*arguments)
    return peak_rss_mb()


def memory_row(name: str, peak: float, baseline: str, beside: float, note: str) -> dict[str, Any]:
    """One row of a suite: the long run's peak beside the short one's; the ratio is short over long,
    1 when flat."""
    return {
        "name": name,
        "median": peak,
        "unit": "MB",
        "baseline": baseline,
        "baseline_median": beside,
        "ratio": beside / peak,
        "note": note,
    }


def there_and_back(index: int, count: int = MOMENTS) -> int:
    """0 1 2 ... count-1 ... 2 1 0 1 2 ..."""
    phase = index % (2 * count - 2)
    return min(phase, 2 * count - 2 - phase)


def small_pictures(count: int = MOMENTS) -> list[UInt8]:
    """RGB `[240, 320, 3]` of the plane at the first `count` moments of its sway."""
    return [
        np.asarray(
            cv2.resize(plane_picture(i), (SMALL.width, SMALL.height), interpolation=cv2.INTER_AREA),
            np.uint8,
        )
        for i in range(count)
    ]


def knowing_predictor() -> PlanePredictor:
    """An exact and free network for the looped recording."""
    scene = PlaneScene()
    return PlanePredictor(scene, lambda frame: scene.pose(there_and_back(frame.id)))


def small_config() -> Config:
    """Default settings with depth at 112 pixels of width: every part works, many frames a
    second."""
    config = Config()
    config.tracking.depth_width = 112
    return config
