"""Image messages to RGB and results to image messages, from the fields alone (REP-118 for depth).

`sensor_msgs/Image` and `CompressedImage` are duck-typed: rclpy and rosbags objects, ROS 1 and ROS
2, decode through the same lines. Every way in which an image can be unusable becomes a FrameError
whose reason is the key of a drop counter.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import FrameError
from flow3r_ros.types import Bool, Float32, UInt8

Make = Callable[..., Any]
"""`make(type_name, **fields)` builds a message: an rclpy object in the node, a rosbags dataclass in
bags"""

Array = NDArray[Any]


class _Encoding(NamedTuple):
    dtype: type[np.generic]
    channels: int
    to_rgb: Callable[[Array], Array]


def _by(code: int) -> Callable[[Array], Array]:
    return lambda pixels: cv2.cvtColor(pixels, code)


def _demosaic(pattern: str) -> Callable[[Array], Array]:
    """Bilinear demosaicing; `pattern` names the first two pixels of the first two rows, as ROS and
    OpenCV's long names do."""
    return _by(getattr(cv2, f"COLOR_Bayer{pattern.upper()}2RGB"))


_ENCODINGS: dict[str, _Encoding] = {
    "rgb8": _Encoding(np.uint8, 3, lambda pixels: pixels),
    "bgr8": _Encoding(np.uint8, 3, _by(cv2.COLOR_BGR2RGB)),
    "8uc3": _Encoding(np.uint8, 3, _by(cv2.COLOR_BGR2RGB)),
    "rgba8": _Encoding(np.uint8, 4, _by(cv2.COLOR_RGBA2RGB)),
    "bgra8": _Encoding(np.uint8, 4, _by(cv2.COLOR_BGRA2RGB)),
    "mono8": _Encoding(np.uint8, 1, _by(cv2.COLOR_GRAY2RGB)),
    "8uc1": _Encoding(np.uint8, 1, _by(cv2.COLOR_GRAY2RGB)),
    "mono16": _Encoding(np.uint16, 1, _by(cv2.COLOR_GRAY2RGB)),
    "yuv422": _Encoding(np.uint8, 2, _by(cv2.COLOR_YUV2RGB_UYVY)),
    "uyvy": _Encoding(np.uint8, 2, _by(cv2.COLOR_YUV2RGB_UYVY)),
    "yuv422_yuy2": _Encoding(np.uint8, 2, _by(cv2.COLOR_YUV2RGB_YUY2)),
    "yuyv": _Encoding(np.uint8, 2, _by(cv2.COLOR_YUV2RGB_YUY2)),
}
for _pattern in ("rggb", "bggr", "gbrg", "grbg"):
    _ENCODINGS[f"bayer_{_pattern}8"] = _Encoding(np.uint8, 1, _demosaic(_pattern))
    _ENCODINGS[f"bayer_{_pattern}16"] = _Encoding(np.uint16, 1, _demosaic(_pattern))

ENCODINGS = tuple(_ENCODINGS)
"""encodings of `sensor_msgs/Image` that `decode_image` understands"""


def decode_image(message: Any) -> UInt8:
    """RGB uint8 `[H, W, 3]` of a `sensor_msgs/Image`; a view of the message's own bytes for rgb8,
    16 bits keep their upper 8.

    Raises FrameError with reason `unknown_encoding`, `bad_size` (no pixels, odd width of yuv422),
    `bad_step` (rows shorter than their pixels) or `corrupt_image` (fewer bytes than height x step).
    """
    encoding = _ENCODINGS.get(str(message.encoding).lower())
    if encoding is None:
        raise FrameError(
            "unknown_encoding",
            f"image encoding '{message.encoding}' is unknown",
            f"known: {', '.join(ENCODINGS)}",
        )
    pixels = _pixels(message, encoding)
    if encoding.dtype is np.uint16:
        pixels = (pixels >> 8).astype(np.uint8)
    return np.asarray(encoding.to_rgb(pixels), dtype=np.uint8)


def _pixels(message: Any, encoding: _Encoding) -> Array:
    """View `[H, W]` or `[H, W, C]` into the message's bytes, honouring step and byte order."""
    height, width, step = int(message.height), int(message.width), int(message.step)
    size = np.dtype(encoding.dtype).itemsize
    row = width * encoding.channels * size
    if height < 1 or width < 1 or (encoding.channels == 2 and width % 2):
        raise FrameError(
            "bad_size", f"{message.encoding} image of {width}x{height} pixels has no meaning"
        )
    if step < row or step % size:
        raise FrameError(
            "bad_step",
            f"{message.encoding} image of width {width} needs a step of {row} bytes, has {step}",
        )
    data = np.frombuffer(message.data, dtype=np.uint8)
    if data.size < (height - 1) * step + row:
        raise FrameError(
            "corrupt_image", f"image of {height} rows of {step} bytes holds only {data.size} bytes"
        )
    dtype = np.dtype(encoding.dtype).newbyteorder(">" if message.is_bigendian else "<")
    shape, strides = (height, width, encoding.channels), (step, encoding.channels * size, size)
    pixels: Array = np.ndarray(shape, dtype, data.data, strides=strides)
    return pixels if encoding.channels > 1 else pixels[..., 0]


def decode_compressed(message: Any) -> UInt8:
    """RGB uint8 `[H, W, 3]` of a `sensor_msgs/CompressedImage` (jpeg, png and whatever else OpenCV
    decodes; 16 bits keep their upper 8).

    Raises FrameError with reason `corrupt_image`.
    """
    return decode_bytes(
        np.frombuffer(message.data, dtype=np.uint8), f"compressed image ('{message.format}')"
    )


def decode_bytes(data: UInt8, what: str) -> UInt8:
    """RGB uint8 `[H, W, 3]` of an encoded image; `what` names it in the FrameError (reason
    `corrupt_image`)."""
    try:
        bgr = cv2.imdecode(data, cv2.IMREAD_COLOR) if data.size else None
    except cv2.error:
        bgr = None
    if bgr is None or _is_cut_jpeg(data):
        raise FrameError("corrupt_image", f"{what} of {data.size} bytes cannot be decoded")
    return np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), dtype=np.uint8)


def _is_cut_jpeg(data: UInt8) -> bool:
    """A JPEG without its end marker: the decoder would fill the rest with grey and call it an
    image."""
    return data[:2].tobytes() == b"\xff\xd8" and data.tobytes().rfind(b"\xff\xd9") < 0


def depth_image(make: Make, header: Any, values: Float32) -> Any:
    """`sensor_msgs/Image` 32FC1 (REP-118: metres or odometry units, NaN = invalid) of `values`
    float32 `[h, w]`."""
    return _image(make, header, np.ascontiguousarray(values, dtype="<f4"), "32FC1")


def mask_image(make: Make, header: Any, mask: Bool) -> Any:
    """`sensor_msgs/Image` mono8 of a mask `[h, w]`: 255 where True."""
    return _image(make, header, np.ascontiguousarray(mask, dtype=np.uint8) * np.uint8(255), "mono8")


def rgb_image(make: Make, header: Any, rgb: UInt8) -> Any:
    """`sensor_msgs/Image` rgb8 of `[H, W, 3]`."""
    return _image(make, header, np.ascontiguousarray(rgb), "rgb8")


def _image(make: Make, header: Any, values: Array, encoding: str) -> Any:
    height, width = values.shape[:2]
    return make(
        "sensor_msgs/msg/Image",
        header=header,
        height=height,
        width=width,
        encoding=encoding,
        is_bigendian=0,
        step=values.strides[0],
        data=values.reshape(-1).view(np.uint8),
    )
