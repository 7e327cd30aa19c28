"""Input sizes and resampling as the authors do them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load_file

from flow3r_ros.network.preprocess import network_size, resize
from test.conftest import shared_path


def test_sizes_are_the_reference_ones() -> None:
    table = json.loads(shared_path("reference/preprocess_sizes.json").read_text())
    for case in table["cases"]:
        assert network_size(*case["in_wh"], table["pixel_limit"], table["multiple"]) == tuple(
            case["out_wh"]
        ), case


def test_lanczos_is_the_reference_one() -> None:
    golden = load_file(shared_path("reference/utils_golden.safetensors"))
    source, expected = golden["pp_in_uint8_hwc"], golden["pp_out_limit3000"][0].transpose(1, 2, 0)
    size = network_size(source.shape[1], source.shape[0], 3000)
    assert size == (expected.shape[1], expected.shape[0])
    difference = np.abs(
        resize(source, size, "lanczos").astype(int) - np.rint(expected * 255).astype(int)
    )
    assert difference.max() <= 1
    assert (difference == 0).mean() > 0.99


@pytest.mark.parametrize(
    ("width", "height"), [(640, 480), (1920, 1080), (480, 640), (1242, 375), (15, 15), (5000, 20)]
)
def test_nano_sizes_keep_aspect_and_budget(width: int, height: int) -> None:
    columns, rows = network_size(width, height, 168 * 126)
    assert columns % 14 == rows % 14 == 0
    assert columns * rows <= 168 * 126 or min(columns, rows) == 14
    if min(width, height) > 100:
        assert columns / rows == pytest.approx(width / height, rel=0.15)


@pytest.mark.parametrize("filter_", ["area", "lanczos"])
def test_resizing_keeps_the_mean_and_the_geometry(filter_: str) -> None:
    ramp = (
        np.repeat(np.linspace(0, 255, 64)[None, :, None], 48, axis=0)
        .repeat(3, axis=2)
        .astype(np.uint8)
    )
    small = resize(ramp, (16, 12), filter_)  # type: ignore[arg-type]
    expected = (np.arange(16) + 0.5) * 4 - 0.5
    assert small.shape == (12, 16, 3)
    assert small[6, 2:14, 0] == pytest.approx(expected[2:14] * 255 / 63, abs=2)
