"""Encoded pictures as cameras and folders hold them: torn, padded, bare, 16 bits, bombs."""

from __future__ import annotations

import struct
import zlib
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import FrameError
from flow3r_ros.wire.compressed import decode_bytes, decode_compressed
from flow3r_ros.wire.limits import encoded_size
from flow3r_ros.wire.tones import Tones
from test.wire.pictures import scene


def decode(data: bytes, form: str = "jpeg") -> np.ndarray:
    made = SimpleNamespace(format=form, data=np.frombuffer(data, np.uint8))
    return decode_compressed(made, Tones(lambda key, text: None))


def jpeg(rgb: np.ndarray) -> bytes:
    bgr = cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 98])[1].tobytes()


def without_tables(data: bytes) -> bytes:
    parts, at = [data[:2]], 2
    while data[at + 1] != 0xDA:
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        parts += [data[at:end]] if data[at + 1] != 0xC4 else []
        at = end
    return b"".join(parts) + data[at:]


@pytest.mark.parametrize(
    "change",
    [
        bytes,
        lambda data: data[:-2],
        lambda data: data[:-2] + bytes(700),
        lambda data: data + bytes(5000),
        without_tables,
        lambda data: without_tables(data)[:-2],
    ],
    ids=["whole", "no end", "no end, padded", "padded", "no tables", "no tables, no end"],
)
def test_jpeg_as_cameras_send_it(change) -> None:
    rgb = scene(96, 128)
    assert np.abs(decode(change(jpeg(rgb))).astype(int) - rgb).max() <= 12


@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.8, 0.95])
def test_a_cut_jpeg_is_corrupt_not_grey(share: float) -> None:
    noisy = np.random.default_rng(1).integers(0, 255, (96, 128, 3)).astype(np.uint8)
    data = jpeg(noisy)
    with pytest.raises(FrameError, match="cannot be decoded") as caught:
        decode(data[: int(share * len(data))])
    assert caught.value.reason == "corrupt_image"


def test_the_order_of_colours_is_that_of_the_format() -> None:
    rgb = scene()
    swapped = jpeg(rgb[..., ::-1].copy())
    assert np.abs(decode(swapped, "rgb8; jpeg compressed rgb8").astype(int) - rgb).max() <= 12
    assert np.abs(decode(jpeg(rgb), "rgb8; jpeg compressed bgr8").astype(int) - rgb).max() <= 12


def test_png_of_ten_bits_is_as_bright_as_one_of_eight() -> None:
    gray = cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY)
    gray[:8] = 255
    data = cv2.imencode(".png", gray.astype(np.uint16) * 4)[1].tobytes()
    np.testing.assert_array_equal(decode(data, "mono16; png compressed mono16")[..., 0], gray)


def test_a_picture_of_a_billion_pixels_is_not_decoded() -> None:
    def chunk(kind: bytes, body: bytes) -> bytes:
        check = struct.pack(">I", zlib.crc32(kind + body))
        return struct.pack(">I", len(body)) + kind + body + check

    head = struct.pack(">IIBBBBB", 32000, 32000, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", b"") + chunk(b"IEND", b"")
    with pytest.raises(FrameError, match="32000x32000") as caught:
        decode_bytes(np.frombuffer(bomb, np.uint8), "it", Tones(lambda key, text: None))
    assert caught.value.reason == "too_large"


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tif", ".webp", ".ppm", ".pgm"])
def test_sizes_are_read_from_headers(suffix: str) -> None:
    picture = scene() if suffix != ".pgm" else scene()[..., 0].copy()
    ok, data = cv2.imencode(suffix, picture)
    assert ok
    assert encoded_size(data.tobytes()) == (32, 24)


def test_what_is_no_picture_says_what_would_be() -> None:
    with pytest.raises(FrameError, match="PNG, JPEG"):
        decode(b"hello, this is no picture")
    with pytest.raises(FrameError, match="depth image, not a picture"):
        decode(b"", "16UC1; compressedDepth png")
