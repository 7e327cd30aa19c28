"""Messages whose bytes are in memory of a vendor's, as ROS 2 Lyrical hands them over."""

from __future__ import annotations

from array import array
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np

from flow3r_ros.wire.compressed import decode_compressed
from flow3r_ros.wire.depth_images import decode_depth
from flow3r_ros.wire.encodings import decode_image
from flow3r_ros.wire.tones import Tones


class VendorBuffer:
    """What a `rosidl_buffer.Buffer` of Lyrical offers: a length and `to_bytes`; no buffer
    protocol, no items."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __len__(self) -> int:
        return len(self._data)

    def to_bytes(self) -> bytes:
        return self._data


TONES = Tones(lambda key, text: None)
RGB = np.random.default_rng(0).integers(0, 255, (6, 8, 3), np.uint8)


def both(**fields: Any) -> list[SimpleNamespace]:
    """The message as rclpy has it on every distribution, and with a vendor's buffer."""
    data = fields.pop("data")
    return [SimpleNamespace(**fields, data=kind) for kind in (array("B", data), VendorBuffer(data))]


def test_pictures_and_depth_of_a_vendors_memory_are_read() -> None:
    _, png = cv2.imencode(".png", RGB[..., ::-1])
    raw = both(height=6, width=8, step=24, encoding="rgb8", is_bigendian=0, data=RGB.tobytes())
    planar = both(
        height=6, width=8, step=8, encoding="nv12", is_bigendian=0, data=RGB.tobytes()[:72]
    )
    packed = both(format="rgb8; png compressed bgr8", data=png.tobytes())
    depth = both(
        height=6, width=8, step=16, encoding="16UC1", is_bigendian=0, data=RGB.tobytes()[:96]
    )
    for messages, read in (
        (raw, lambda message: decode_image(message, TONES)),
        (planar, lambda message: decode_image(message, TONES)),
        (packed, lambda message: decode_compressed(message, TONES)),
        (depth, decode_depth),
    ):
        plain, vendors = (read(message) for message in messages)
        assert np.array_equal(plain, vendors, equal_nan=True)
    assert np.array_equal(decode_image(raw[1], TONES), RGB)
