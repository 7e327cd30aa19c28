"""Depth as depth cameras send it to metres: 16UC1 and mono16 millimetres, 32FC1 metres (REP-118),
and both packed by `compressed_depth_image_transport`.

Step and byte order are those of any image (`wire.encodings`). A packed depth image is a PNG behind
a header of 12 bytes: format, and the two numbers a, b by which 32FC1 was stored as a / depth + b.
"""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import FrameError
from flow3r_ros.types import Float32
from flow3r_ros.wire.compressed import decode_unchanged
from flow3r_ros.wire.encodings import view_pixels
from flow3r_ros.wire.limits import check_size
from flow3r_ros.wire.payload import payload

_RAW: dict[str, tuple[type[np.generic], float]] = {
    "32fc1": (np.float32, 1.0),
    "16uc1": (np.uint16, 1e-3),
    "mono16": (np.uint16, 1e-3),
}
_PNG = b"\x89PNG"
_HEADER = 12
DEPTH_ENCODINGS = "16UC1 or mono16 (millimetres), 32FC1 (metres), compressedDepth png"
"""what `decode_depth` understands, in words"""


def decode_depth(message: Any) -> Float32:
    """Metres float32 `[h, w]` (NaN = invalid) of a depth `sensor_msgs/Image` or `CompressedImage`.

    Raises FrameError with reason `unknown_encoding`, `bad_size`, `bad_step`, `corrupt_image` or
    `too_large`.
    """
    depth = _packed(message) if hasattr(message, "format") else _raw(message)
    depth[~(np.isfinite(depth) & (depth > 0))] = np.nan
    return depth


def _raw(message: Any) -> Float32:
    kind = _RAW.get(str(message.encoding).lower())
    if kind is None:
        raise FrameError(
            "unknown_encoding",
            f"depth encoding '{message.encoding}' is unknown",
            f"known: {DEPTH_ENCODINGS}",
        )
    if int(message.height) < 1 or int(message.width) < 1:
        raise FrameError("bad_size", "a depth image has no pixels")
    check_size(int(message.width), int(message.height), "a depth image")
    return _metres(view_pixels(message, kind[0], 1), kind[1])


def _packed(message: Any) -> Float32:
    form, data = str(message.format), payload(message.data).tobytes()
    at = data.find(_PNG, 0, _HEADER + len(_PNG))
    if at < 0:
        raise FrameError(
            "unknown_encoding",
            f"compressed depth '{form}' holds no PNG",
            f"known: {DEPTH_ENCODINGS}; set compressedDepth's format to png",
        )
    values = decode_unchanged(data[at:], f"compressed depth ('{form}')")
    if values.ndim != 2 or values.dtype != np.uint16:
        raise FrameError("unknown_encoding", f"compressed depth ('{form}') is not 16-bit gray")
    if not form.lower().startswith("32fc1"):
        return _metres(values, 1e-3)
    if at != _HEADER:
        raise FrameError("corrupt_image", f"compressed depth ('{form}') lacks its header")
    a, b = struct.unpack_from("<ff", data, 4)
    with np.errstate(divide="ignore", invalid="ignore"):
        inverse = np.where(values > 0, values.astype(np.float32) - np.float32(b), np.nan)
        return np.asarray(np.float32(a) / inverse, np.float32)


def _metres(values: NDArray[Any], unit: float) -> Float32:
    return np.asarray(values.astype(np.float32) * np.float32(unit))
