"""Results as image messages decode back to what they were."""

from __future__ import annotations

import numpy as np

from flow3r_ros.bags.types import make
from flow3r_ros.wire import images
from flow3r_ros.wire.encodings import decode_image
from flow3r_ros.wire.tones import Tones
from flow3r_ros.wire.transforms import header_of
from test.wire.pictures import scene

TONES = Tones(lambda key, text: None)


def test_outputs_decode_back() -> None:
    header = header_of(make, 3_000_000_007, "cam")
    depth = np.array([[1.5, np.nan], [0.25, 1e3]], np.float32)
    built = images.depth_image(make, header, depth)
    assert (built.encoding, built.step, built.height, built.width) == ("32FC1", 8, 2, 2)
    np.testing.assert_array_equal(np.frombuffer(built.data, np.float32).reshape(2, 2), depth)
    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(
        decode_image(images.mask_image(make, header, mask), TONES)[..., 0], mask * 255
    )
    np.testing.assert_array_equal(
        decode_image(images.rgb_image(make, header, scene()), TONES), scene()
    )
    assert (header.stamp.sec, header.stamp.nanosec) == (3, 7)
