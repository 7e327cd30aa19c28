"""What every test may need: the shared development data, and quiet, single-threaded OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import pytest
from hypothesis import settings

settings.register_profile("house", deadline=None)
settings.load_profile("house")
"""no test of this house asserts a wall time: the machine may be busy"""

SHARED = Path(__file__).resolve().parents[2] / "shared"

LONGEST = (
    "training/test_distributed.py",
    "ros/test_live_cases.py",
    "evaluation/test_scoreboard.py",
    "training/labels/test_ray_engine.py",
    "network/test_onnx.py",
    "bench/test_training.py",
    "ros/test_map.py",
    "training/test_experiment.py",
)
"""files that run for more than half a minute: begun first, so that no worker is left with one"""

cv2.setNumThreads(1)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, everything else in its order."""
    here = Path(__file__).parent
    rank = {here / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def shared_path(relative: str) -> Path:
    """Path below ../shared, or skip the test when the development data is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"development data {path} is absent (it is never committed)")
    return path
