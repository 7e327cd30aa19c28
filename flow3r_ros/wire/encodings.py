"""`sensor_msgs/Image` to RGB, from the fields alone; rclpy and rosbags objects, ROS 1 and ROS 2,
decode through the same lines.

Every way in which an image can be unusable becomes a FrameError whose reason is the key of a drop
counter. The names are those of `sensor_msgs/image_encodings.hpp`, those of libcamera and video
decoders, and what drivers write for them; capitals do not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import FrameError
from flow3r_ros.types import UInt8
from flow3r_ros.wire.limits import check_size
from flow3r_ros.wire.payload import payload
from flow3r_ros.wire.planar import PLANAR, decode_planar
from flow3r_ros.wire.tones import Tones

Array = NDArray[Any]


class _Encoding(NamedTuple):
    dtype: type[np.generic]
    channels: int
    to_rgb: Callable[[UInt8], Array]
    """from 8 bits"""


def _by(code: int) -> Callable[[UInt8], Array]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _same(pixels: UInt8) -> Array:
    return pixels


_BGR = _by(cv2.COLOR_BGR2RGB)
_BY_CHANNELS = {1: _by(cv2.COLOR_GRAY2RGB), 3: _BGR, 4: _by(cv2.COLOR_BGRA2RGB)}
"""what OpenCV takes unnamed channels for"""
_COLOURS: dict[str, tuple[int, Callable[[UInt8], Array]]] = {
    "rgb": (3, _same),
    "bgr": (3, _BGR),
    "rgba": (4, _by(cv2.COLOR_RGBA2RGB)),
    "bgra": (4, _by(cv2.COLOR_BGRA2RGB)),
    "mono": (1, _BY_CHANNELS[1]),
}
_DEPTHS: dict[str, type[np.generic]] = {
    "8U": np.uint8,
    "8S": np.int8,
    "16U": np.uint16,
    "16S": np.int16,
    "32S": np.int32,
    "32F": np.float32,
    "64F": np.float64,
}
_ENCODINGS: dict[str, _Encoding] = {
    f"{name}{bits}": _Encoding(np.uint8 if bits == 8 else np.uint16, channels, to_rgb)
    for bits in (8, 16)
    for name, (channels, to_rgb) in _COLOURS.items()
}
for _pattern in ("rggb", "bggr", "gbrg", "grbg"):
    _mosaic = _by(getattr(cv2, f"COLOR_Bayer{_pattern.upper()}2RGB"))
    _ENCODINGS[f"bayer_{_pattern}8"] = _Encoding(np.uint8, 1, _mosaic)
    _ENCODINGS[f"bayer_{_pattern}16"] = _Encoding(np.uint16, 1, _mosaic)
_ENCODINGS |= {
    f"{depth}C{channels}": _Encoding(dtype, channels, _BY_CHANNELS[channels])
    for depth, dtype in _DEPTHS.items()
    for channels in (1, 3, 4)
}
_UYVY, _YUYV = (
    _Encoding(np.uint8, 2, _by(code)) for code in (cv2.COLOR_YUV2RGB_UYVY, cv2.COLOR_YUV2RGB_YUY2)
)
_ENCODINGS |= {"yuv422": _UYVY, "uyvy": _UYVY, "yuv422_yuy2": _YUYV, "yuyv": _YUYV}

ENCODINGS = (*_ENCODINGS, *PLANAR)
"""encodings that `decode_image` understands"""
IN_WORDS = (
    "rgb, bgr, rgba, bgra and mono of 8 and 16 bits, bayer_rggb, bggr, gbrg and grbg of 8 and 16 "
    f"bits, yuv422, uyvy, yuv422_yuy2, yuyv, {', '.join(PLANAR)}, and 8U, 8S, 16U, 16S, 32S, 32F "
    "and 64F with C1, C3 or C4"
)
_SPELLINGS = {
    "8uc": "8UC1",
    "y8": "mono8",
    "gray8": "mono8",
    "grey8": "mono8",
    "y16": "mono16",
    "gray16": "mono16",
    "mono10": "mono16",
    "mono12": "mono16",
    "mono14": "mono16",
    "yuy2": "yuyv",
    "yuyv422": "yuyv",
    "uyvy422": "uyvy",
    **{
        f"bayer_{pattern}{bits}": f"bayer_{pattern}16"
        for pattern in ("rggb", "bggr", "gbrg", "grbg")
        for bits in (10, 12, 14)
    },
}
_BY_NAME = {name.lower(): name for name in ENCODINGS} | _SPELLINGS


def decode_image(message: Any, tones: Tones) -> UInt8:
    """RGB uint8 `[H, W, 3]` of a `sensor_msgs/Image`; a view of the message's own bytes for rgb8,
    more than 8 bits through `tones`.

    Raises FrameError with reason `unknown_encoding`, `bad_size` (no pixels, odd width of yuv422),
    `bad_step` (rows shorter than their pixels), `corrupt_image` (fewer bytes than height x step) or
    `too_large`.
    """
    if int(message.height) < 1 or int(message.width) < 1:
        raise FrameError(
            "bad_size",
            f"{message.encoding or 'an'} image of {message.width}x{message.height} pixels has no "
            "meaning",
        )
    check_size(int(message.width), int(message.height), "an image")
    name = _BY_NAME.get(str(message.encoding).strip().lower())
    if name is None:
        raise FrameError(
            "unknown_encoding",
            f"image encoding '{message.encoding}' is unknown",
            f"known: {IN_WORDS}",
        )
    if name in PLANAR:
        return decode_planar(message, name)
    encoding = _ENCODINGS[name]
    if encoding.channels == 2 and int(message.width) % 2:
        raise FrameError("bad_size", f"{name} image has an odd width of {message.width}")
    shown = tones.to_8_bits(view_pixels(message, encoding.dtype, encoding.channels), name)
    return np.asarray(encoding.to_rgb(shown), dtype=np.uint8)


def view_pixels(message: Any, dtype: type[np.generic], channels: int) -> Array:
    """View `[H, W]` or `[H, W, C]` into the message's bytes, honouring step and byte order.

    Raises FrameError with reason `bad_step` or `corrupt_image`.
    """
    height, width, step = int(message.height), int(message.width), int(message.step)
    size = np.dtype(dtype).itemsize
    row = width * channels * size
    if step < row or step % size:
        raise FrameError(
            "bad_step",
            f"{message.encoding} image of width {width} needs a step of {row} bytes, has {step}",
        )
    data = payload(message.data)
    if data.size < (height - 1) * step + row:
        raise FrameError(
            "corrupt_image", f"image of {height} rows of {step} bytes holds only {data.size} bytes"
        )
    kind = np.dtype(dtype).newbyteorder(">" if message.is_bigendian else "<")
    shape, strides = (height, width, channels), (step, channels * size, size)
    pixels: Array = np.ndarray(shape, kind, data.data, strides=strides)
    return pixels if channels > 1 else pixels[..., 0]
