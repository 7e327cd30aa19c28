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

cv2.setNumThreads(1)


def shared_path(relative: str) -> Path:
    """Path below ../shared, or skip the test when the development data is absent."""
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"development data {path} is absent (it is never committed)")
    return path
