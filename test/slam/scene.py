"""The ray-cast room as JPEG pictures."""

from __future__ import annotations

import cv2

from flow3r_ros.types import Float64
from test.geometry.views import render


def jpeg(T_world_cam: Float64) -> bytes:
    """What a camera at this pose sees."""
    _, data = cv2.imencode(".jpg", render(T_world_cam).gray, [cv2.IMWRITE_JPEG_QUALITY, 95])
    return data.tobytes()
