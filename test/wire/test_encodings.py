"""Every encoding decodes to the colours that went in, views where possible, and every damage has
its reason."""

from __future__ import annotations

import re
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import FrameError
from flow3r_ros.wire.encodings import ENCODINGS, decode_image
from flow3r_ros.wire.planar import PLANAR
from flow3r_ros.wire.tones import Tones
from test.wire.pictures import message, scene

MOSAIC = {"rggb": "RGGB", "bggr": "BGGR", "gbrg": "GBRG", "grbg": "GRBG"}
PACKED = [name for name in ENCODINGS if name not in PLANAR]


def tones() -> Tones:
    return Tones(lambda key, text: None)


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
    if encoding in ("yuv422", "uyvy", "yuv422_yuy2", "yuyv"):
        uyvy = encoding in ("yuv422", "uyvy")
        return cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_UYVY if uyvy else cv2.COLOR_RGB2YUV_YUYV)
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    kind = re.fullmatch(r"(\d+)([USF])C([134])", encoding)
    if kind is None:
        name, bits = re.fullmatch(r"([a-z]+)(\d+)", encoding).groups()
        code = {
            "rgb": None,
            "bgr": cv2.COLOR_RGB2BGR,
            "rgba": cv2.COLOR_RGB2RGBA,
            "bgra": cv2.COLOR_RGB2BGRA,
        }
        pixels = (
            gray if name == "mono" else rgb if code[name] is None else cv2.cvtColor(rgb, code[name])
        )
        return pixels if bits == "8" else pixels.astype(np.uint16) * 257
    pixels = {
        "1": gray,
        "3": cv2.cvtColor(rgb, cv2.COLOR_RGB2BGR),
        "4": cv2.cvtColor(rgb, cv2.COLOR_RGB2BGRA),
    }[kind[3]]
    if kind[2] == "U":
        return pixels if kind[1] == "8" else pixels.astype(np.uint16) * 257
    if encoding.startswith("8S"):
        return (pixels // 2).astype(np.int8)
    return pixels.astype(
        {"16S": np.int16, "32S": np.int32, "32F": np.float32, "64F": float}[encoding[:3]]
    )


@pytest.mark.parametrize("pad", [0, 8])
@pytest.mark.parametrize("encoding", PACKED)
def test_every_encoding_returns_its_colours(encoding: str, pad: int) -> None:
    rgb = scene()
    decoded = decode_image(message(encoded(rgb, encoding), encoding, rgb.shape[1], pad), tones())
    expected = (
        rgb
        if not (encoding.startswith("mono") or encoding.endswith("C1"))
        else np.repeat(cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)
    )
    assert decoded.shape == rgb.shape
    assert decoded.dtype == np.uint8
    if encoding.startswith("8S"):
        expected = expected // 2
    tolerance = 14 if encoding.startswith(("bayer", "yuv", "uyvy", "yuyv")) else 1
    inner = np.abs(decoded.astype(int) - expected)[2:-2, 2:-2]
    assert inner.max() <= tolerance


def test_big_endian_sixteen_bits() -> None:
    gray = np.arange(64, dtype=np.uint16).reshape(8, 8) * 1000
    decoded = decode_image(message(gray.astype(">u2"), "mono16", 8, bigendian=True), tones())
    np.testing.assert_array_equal(decoded[..., 1], (gray >> 8).astype(np.uint8))


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_sixteen_bits_are_scaled_by_what_they_hold(bits: int) -> None:
    gray = cv2.cvtColor(scene(), cv2.COLOR_RGB2GRAY)
    gray[:8] = 255
    wide = gray.astype(np.uint16) << (bits - 8)
    for encoding in ("mono16", "16UC1"):
        decoded = decode_image(message(wide, encoding, 32), tones())
        np.testing.assert_array_equal(decoded[..., 0], gray)


def test_the_range_stays_for_a_recording_and_grows_only_when_it_must() -> None:
    said: list[str] = []
    kept = Tones(lambda key, text: said.append(text))
    bright = np.full((24, 32), 1000, np.uint16)
    assert decode_image(message(bright, "mono16", 32), kept).max() == 250
    assert decode_image(message(bright // 10, "mono16", 32), kept).max() == 25, "darker is darker"
    few = bright.copy()
    few[0, :4] = 60000
    assert decode_image(message(few, "mono16", 32), kept)[5, 5, 0] == 250, "a few hot pixels clip"
    assert decode_image(message(bright * 16, "mono16", 32), kept).max() == 250
    assert len(said) == 2
    assert "grows to 0 to 16384" in said[1]


def test_a_thermal_band_far_from_zero_is_stretched() -> None:
    band = (29000 + 2 * np.arange(24 * 32).reshape(24, 32)).astype(np.uint16)
    decoded = decode_image(message(band, "mono16", 32), tones())
    assert int(decoded.max()) - int(decoded.min()) > 100


PLANES = {
    "nv12": lambda y, u, v: [y, np.stack([u, v], -1)],
    "nv21": lambda y, u, v: [y, np.stack([v, u], -1)],
    "i420": lambda y, u, v: [y, u, v],
    "yv12": lambda y, u, v: [y, v, u],
    "nv16": lambda y, u, v: [y, np.stack([u, v], -1).repeat(2, 0)],
    "nv24": lambda y, u, v: [y, np.stack([u, v], -1).repeat(2, 0).repeat(2, 1)],
}


@pytest.mark.parametrize("habit", ["plain", "colour rows in height"])
@pytest.mark.parametrize("encoding", PLANAR)
def test_planar_encodings_return_their_colours(encoding: str, habit: str) -> None:
    rgb = scene()
    i420 = cv2.cvtColor(rgb, cv2.COLOR_RGB2YUV_I420).reshape(-1)
    n = 24 * 32
    y, u, v = i420[:n], i420[n : n + n // 4], i420[n + n // 4 :]
    planes = PLANES[encoding](y, u.reshape(12, 16), v.reshape(12, 16))
    data = np.concatenate([plane.reshape(-1) for plane in planes])
    made = message(rgb[..., 0], encoding, 32)
    made.data = data
    if habit != "plain":
        made.height = len(data) // 32
    decoded = decode_image(made, tones())
    assert np.abs(decoded.astype(int) - rgb)[2:-2, 2:-2].max() <= 14
    made.data = data[:-100]
    with pytest.raises(FrameError, match=r"needs|step"):
        decode_image(made, tones())


def test_an_unknown_encoding_names_the_known_ones() -> None:
    with pytest.raises(FrameError, match=r"'xyz9' is unknown; known: .*nv12.*16U"):
        decode_image(message(scene(), "xyz9", 32), tones())


def test_rgb8_is_a_view_of_the_message() -> None:
    data = scene().reshape(-1)
    source = SimpleNamespace(
        height=24, width=32, encoding="rgb8", is_bigendian=0, step=96, data=data
    )
    assert np.shares_memory(decode_image(source, tones()), data)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"encoding": "jpeg2000x"}, "unknown_encoding"),
        ({"step": 10}, "bad_step"),
        ({"height": 0}, "bad_size"),
        ({"data": b"\x00" * 100}, "corrupt_image"),
        ({"data": b""}, "corrupt_image"),
        ({"height": 4_000_000}, "too_large"),
        ({"encoding": "yuv422", "width": 31}, "bad_size"),
    ],
)
def test_damage_has_a_reason(change: dict[str, Any], reason: str) -> None:
    damaged = message(scene(), "bgr8", 32)
    for key, value in change.items():
        setattr(damaged, key, value)
    with pytest.raises(FrameError) as caught:
        decode_image(damaged, tones())
    assert caught.value.reason == reason
