"""Every encoding decodes to the colours that went in, views where possible, and every damage has
its reason."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.errors import FrameError
from flow3r_ros.wire import images
from flow3r_ros.wire.transforms import header_of

MOSAIC = {"rggb": "RGGB", "bggr": "BGGR", "gbrg": "GBRG", "grbg": "GRBG"}


def scene(height: int = 24, width: int = 32) -> np.ndarray:
    """Smooth colours, so that chroma subsampling and demosaicing lose little."""
    x, y = np.meshgrid(np.linspace(0, 1, width), np.linspace(0, 1, height))
    return np.stack([60 + 120 * x, 200 - 100 * y, 40 + 90 * x * y], axis=-1).astype(np.uint8)


def message(
    data: np.ndarray, encoding: str, width: int, pad: int = 0, bigendian: bool = False
) -> Any:
    rows = data.reshape(data.shape[0], -1).view(np.uint8)
    padded = np.pad(rows, ((0, 0), (0, pad)), constant_values=7)
    return SimpleNamespace(
        height=data.shape[0],
        width=width,
        encoding=encoding,
        is_bigendian=int(bigendian),
        step=padded.shape[1],
        data=padded.tobytes(),
    )


def mosaic(rgb: np.ndarray, pattern: str) -> np.ndarray:
    out = np.empty(rgb.shape[:2], np.uint8)
    for index, colour in enumerate(pattern):
        row, column = divmod(index, 2)
        out[row::2, column::2] = rgb[row::2, column::2, "RGB".index(colour)]
    return out


def encoded(rgb: np.ndarray, encoding: str) -> np.ndarray:
    if encoding.startswith("bayer"):
        out = mosaic(rgb, MOSAIC[encoding[6:10]])
        return out if encoding.endswith("8") else out.astype(np.uint16) * 257
    codes = {
        "rgb8": None,
        "bgr8": cv2.COLOR_RGB2BGR,
        "8uc3": cv2.COLOR_RGB2BGR,
        "rgba8": cv2.COLOR_RGB2RGBA,
        "bgra8": cv2.COLOR_RGB2BGRA,
    }
    if encoding in codes:
        return rgb if codes[encoding] is None else cv2.cvtColor(rgb, codes[encoding])
    if encoding in ("mono8", "8uc1"):
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    if encoding == "mono16":
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY).astype(np.uint16) * 257
    return cv2.cvtColor(
        rgb, cv2.COLOR_RGB2YUV_UYVY if encoding in ("yuv422", "uyvy") else cv2.COLOR_RGB2YUV_YUYV
    )


@pytest.mark.parametrize("pad", [0, 6])
@pytest.mark.parametrize("encoding", images.ENCODINGS)
def test_every_encoding_returns_its_colours(encoding: str, pad: int) -> None:
    rgb = scene()
    decoded = images.decode_image(message(encoded(rgb, encoding), encoding, rgb.shape[1], pad))
    expected = (
        rgb
        if encoding not in ("mono8", "mono16", "8uc1")
        else np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    )
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8
    tolerance = 14 if encoding.startswith(("bayer", "yuv", "uyvy", "yuyv")) else 0
    inner = np.abs(decoded.astype(int) - expected)[2:-2, 2:-2]
    assert inner.max() <= tolerance


def test_big_endian_sixteen_bits() -> None:
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    decoded = images.decode_image(message(gray.astype(">u2"), "mono16", 8, bigendian=True))
    np.testing.assert_array_equal(decoded[..., 1], (gray >> 8).astype(np.uint8))


def test_rgb8_is_a_view_of_the_message() -> None:
    data = scene().reshape(-1)
    source = SimpleNamespace(
        height=24, width=32, encoding="rgb8", is_bigendian=0, step=96, data=data
    )
    assert np.shares_memory(images.decode_image(source), data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoding": "jpeg2000x"}, "unknown_encoding"),
        ({"step": 10}, "bad_step"),
        ({"height": 0}, "bad_size"),
        ({"data": b"\x00" * 100}, "corrupt_image"),
        ({"data": b""}, "corrupt_image"),
        ({"height": 4_000_000}, "corrupt_image"),
        ({"encoding": "yuv422", "width": 31}, "bad_size"),
    ],
)
def test_damage_has_a_reason(change: dict[str, Any], reason: str) -> None:
    damaged = message(scene(), "bgr8", 32)
    for key, value in change.items():
        setattr(damaged, key, value)
    with pytest.raises(FrameError) as caught:
        images.decode_image(damaged)
    assert caught.value.reason == reason


@pytest.mark.parametrize("extension", [".jpg", ".png"])
def test_compressed_images(extension: str) -> None:
    rgb = scene()
    _, data = cv2.imencode(
        extension, cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 98]
    )
    decoded = images.decode_compressed(SimpleNamespace(format=extension[1:], data=data.reshape(-1)))
    assert np.abs(decoded.astype(int) - rgb).max() <= (12 if extension == ".jpg" else 0)


@pytest.mark.parametrize("keep", [0, 2, 200, -3])
def test_cut_jpeg_is_corrupt_not_grey(keep: int) -> None:
    _, data = cv2.imencode(".jpg", scene())
    with pytest.raises(FrameError, match="cannot be decoded") as caught:
        images.decode_compressed(SimpleNamespace(format="jpeg", data=data.reshape(-1)[:keep]))
    assert caught.value.reason == "corrupt_image"


def test_padded_jpeg_is_fine() -> None:
    _, data = cv2.imencode(".jpg", scene())
    padded = np.concatenate([data.reshape(-1), np.zeros(5000, np.uint8)])
    assert images.decode_compressed(SimpleNamespace(format="jpeg", data=padded)).shape == (
        24,
        32,
        3,
    )


def test_outputs_decode_back() -> None:
    header = header_of(make, 3_000_000_007, "cam")
    depth = np.array([[1.5, np.nan], [0.25, 1e3]], np.float32)
    built = images.depth_image(make, header, depth)
    assert (built.encoding, built.step, built.height, built.width) == ("32FC1", 8, 2, 2)
    np.testing.assert_array_equal(np.frombuffer(built.data, np.float32).reshape(2, 2), depth)
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(
        images.decode_image(images.mask_image(make, header, mask))[..., 0], mask * 255
    )
    np.testing.assert_array_equal(
        images.decode_image(images.rgb_image(make, header, scene())), scene()
    )
    assert (header.stamp.sec, header.stamp.nanosec) == (3, 7)
