"""YUV images whose colour planes follow the luma plane, as video decoders and libcamera send them.

`height` and `width` are those of the picture and `step` is that of a luma row; the two habits that
are common beside it (a height that counts the colour rows, a step that counts their bytes too) are
told by the number of bytes and read as well.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from flow3r_ros.errors import FrameError
from flow3r_ros.types import UInt8
from flow3r_ros.wire.payload import payload

PLANAR = ("nv12", "nv21", "nv16", "nv24", "i420", "yv12")
"""encodings that `decode_planar` understands"""

_COLOUR_BYTES = {"nv16": 1.0, "nv24": 2.0}
"""bytes of the colour planes for each luma byte; half of one for the others"""
_CODES = {
    "nv12": cv2.COLOR_YUV2RGB_NV12,
    "nv21": cv2.COLOR_YUV2RGB_NV21,
    "nv16": cv2.COLOR_YUV2RGB_NV12,
    "nv24": cv2.COLOR_YUV2RGB_NV12,
    "i420": cv2.COLOR_YUV2RGB_I420,
    "yv12": cv2.COLOR_YUV2RGB_YV12,
}


def decode_planar(message: Any, encoding: str) -> UInt8:
    """RGB uint8 `[H, W, 3]`; nv16 and nv24 keep a quarter of their colour, all of their luma.

    Raises FrameError with reason `bad_size` (odd width or height), `bad_step` or `corrupt_image`.
    """
    share = _COLOUR_BYTES.get(encoding, 0.5)
    data = payload(message.data)
    height, width, step = _layout(message, data.size, share)
    if width % 2 or height % 2:
        raise FrameError("bad_size", f"{encoding} image of {width}x{height}: sizes must be even")
    if step < width:
        raise FrameError(
            "bad_step", f"{encoding} image of width {width} needs a step of {width}, has {step}"
        )
    needed = step * height + round(share * step * height)
    if data.size < needed - (step - width):
        raise FrameError(
            "corrupt_image",
            f"{encoding} image of {width}x{height} needs {needed} bytes, holds {data.size}",
        )
    whole = np.zeros(needed, np.uint8)
    whole[: min(needed, data.size)] = data[:needed]
    luma = whole[: step * height].reshape(height, step)[:, :width]
    colour = whole[step * height :]
    planes = np.concatenate([luma.reshape(-1), _colour(colour, encoding, height, width, step)])
    code = _CODES[encoding]
    return np.asarray(cv2.cvtColor(planes.reshape(height * 3 // 2, width), code), dtype=np.uint8)


def _layout(message: Any, size: int, share: float) -> tuple[int, int, int]:
    """(height, width, luma step) of the picture, see the module."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    total = 1.0 + share
    if step == round(width * total) and step > width and size >= step * height:
        return height, width, width
    if size == height * step and (height / total).is_integer():
        return int(height / total), width, step
    return height, width, step


def _colour(colour: UInt8, encoding: str, height: int, width: int, step: int) -> UInt8:
    """The colour planes without padding, at half the resolution in both directions."""
    if encoding in ("i420", "yv12"):
        return colour.reshape(2 * (height // 2), step // 2)[:, : width // 2].reshape(-1)
    if encoding == "nv24":
        pairs = colour.reshape(height, step, 2)[:, :width]
    else:
        rows = height if encoding == "nv16" else height // 2
        pairs = colour.reshape(rows, step)[:, :width].reshape(rows, width // 2, 2)
    half = (width // 2, height // 2)
    if pairs.shape[:2] != half[::-1]:
        pairs = np.asarray(cv2.resize(pairs, half, interpolation=cv2.INTER_AREA), np.uint8)
    return np.asarray(pairs.reshape(-1), np.uint8)
