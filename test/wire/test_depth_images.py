"""Depth as depth cameras send it becomes metres, or a refusal in words."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import FrameError
from flow3r_ros.wire.depth_images import decode_depth
from test.wire.pictures import message

METRES = np.linspace(0.5, 6.0, 24 * 32).reshape(24, 32)
METRES[3, 4] = 0.0


def check(decoded: np.ndarray, tolerance: float = 6e-4) -> None:
    assert decoded.dtype == np.float32
    assert np.isnan(decoded[3, 4])
    assert np.nanmax(np.abs(decoded - np.where(METRES > 0, METRES, np.nan))) < tolerance


@pytest.mark.parametrize("bigendian", [False, True])
@pytest.mark.parametrize("pad", [0, 64])
@pytest.mark.parametrize("encoding", ["16UC1", "mono16", "32FC1"])
def test_raw_depth(encoding: str, pad: int, bigendian: bool) -> None:
    values = METRES.astype("f4") if encoding == "32FC1" else np.rint(METRES * 1000).astype("u2")
    order = values.astype(values.dtype.newbyteorder(">" if bigendian else "<"))
    check(decode_depth(message(order, encoding, 32, pad, bigendian)))


def test_packed_depth() -> None:
    png = cv2.imencode(".png", np.rint(METRES * 1000).astype(np.uint16))[1].tobytes()
    for form in ("16UC1; compressedDepth png", "16UC1; compressedDepth"):
        check(decode_depth(SimpleNamespace(format=form, data=bytes(12) + png)))
    check(decode_depth(SimpleNamespace(format="16UC1; png compressed", data=png)))


def test_packed_floats_are_stored_as_inverse_depth() -> None:
    a, b = 10000.0, 50.0
    with np.errstate(divide="ignore"):
        stored = np.where(METRES > 0, np.rint(a / METRES + b), 0).astype(np.uint16)
    data = struct.pack("<iff", 1, a, b) + cv2.imencode(".png", stored)[1].tobytes()
    check(decode_depth(SimpleNamespace(format="32FC1; compressedDepth png", data=data)), 5e-3)


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (message(np.zeros((4, 12), np.uint8), "rgb8", 4), "'rgb8' is unknown; known: 16UC1"),
        (SimpleNamespace(format="16UC1; compressedDepth rvl", data=bytes(40)), "holds no PNG"),
        (message(np.zeros((4, 4), np.uint8), "16UC1", 4), "needs a step of 8"),
    ],
)
def test_what_is_no_depth_is_refused_in_words(made, words: str) -> None:
    with pytest.raises(FrameError, match=words):
        decode_depth(made)
