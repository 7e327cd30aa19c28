"""Encoded pictures (JPEG, PNG and whatever else OpenCV decodes) to RGB: `CompressedImage`, files of
folders, thumbnails."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from flow3r_ros.errors import FrameError
from flow3r_ros.types import UInt8
from flow3r_ros.wire import jpeg
from flow3r_ros.wire.limits import FORMATS, check_size, encoded_size
from flow3r_ros.wire.payload import payload
from flow3r_ros.wire.tones import Tones


def decode_compressed(message: Any, tones: Tones) -> UInt8:
    """RGB uint8 `[H, W, 3]` of a `sensor_msgs/CompressedImage`; more than 8 bits through `tones`.

    `format` says in which order the colours were compressed (`rgb8; jpeg compressed bgr8`); bgr
    where it does not. Raises FrameError with reason `corrupt_image`, `too_large`, or
    `unknown_encoding` for compressed depth.
    """
    form = str(message.format)
    if "compresseddepth" in form.lower():
        raise FrameError(
            "unknown_encoding",
            f"'{form}' is a depth image, not a picture",
            "choose the topic of the camera's pictures",
        )
    data = payload(message.data)
    as_rgb = "compressed rgb" in form.lower()
    return decode_bytes(data, f"compressed image ('{form}')", tones, as_rgb)


def decode_bytes(data: UInt8, what: str, tones: Tones, as_rgb: bool = False) -> UInt8:
    """RGB uint8 `[H, W, 3]` of an encoded picture; `what` names it in the FrameError (reason
    `corrupt_image` or `too_large`), `as_rgb` says that red comes first where the format has
    blue."""
    raw = data.tobytes()
    pixels = _decoded(raw, what, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH)
    pixels = tones.to_8_bits(pixels, f"{pixels.dtype.itemsize * 8}-bit picture")
    return pixels if as_rgb else np.asarray(cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def decode_unchanged(data: bytes, what: str) -> np.ndarray[Any, Any]:
    """The values of an encoded picture as they are stored (depth). Raises FrameError as
    `decode_bytes` does."""
    return _decoded(data, what, cv2.IMREAD_UNCHANGED)


def _decoded(data: bytes, what: str, flags: int) -> np.ndarray[Any, Any]:
    size = encoded_size(data)
    if size is None:
        kind = f"none of {FORMATS}, or its header is damaged" if data else "empty"
        raise FrameError("corrupt_image", f"{what} of {len(data)} bytes cannot be decoded: {kind}")
    check_size(*size, what)
    whole, ended = jpeg.mended(data) if jpeg.is_jpeg(data) else (data, True)
    try:
        pixels = cv2.imdecode(np.frombuffer(whole, np.uint8), flags) if whole else None
    except cv2.error:
        pixels = None
    if pixels is None or (not ended and jpeg.is_cut(np.asarray(pixels))):
        raise FrameError("corrupt_image", f"{what} of {len(data)} bytes cannot be decoded")
    return np.asarray(pixels)
