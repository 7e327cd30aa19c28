"""What a card must hold is computed from the shapes alone, and counts what is alive at a time."""

from __future__ import annotations

import torch

from flow3r_ros.bench.gpu_memory import Alive, need
from test.network.factories import COLUMNS, ROWS, tiny_config, tiny_model


def test_storages_count_from_birth_to_death() -> None:
    given = torch.zeros(1000)
    with Alive([given]) as alive:
        kept = given + 1
        view = kept.reshape(10, 100)
        del kept
        assert alive.now == 4000, "a view keeps its storage alive"
        (given + 2).sum().item()
        assert 8000 < alive.peak < 9000
        del view
        assert alive.now == 0
        given.reshape(10, 100)
    assert alive.now == 0


def test_longer_windows_and_larger_images_need_more() -> None:
    small = need(2, (COLUMNS, ROWS), tiny_config())
    longer = need(8, (COLUMNS, ROWS), tiny_config())
    larger = need(2, (2 * COLUMNS, 2 * ROWS), tiny_config())
    state = tiny_model().state_dict()
    whole = sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    assert whole / 2 < small.weights < whole, "matrices in bfloat16, the rest in float32"
    assert small.weights < small.peak < min(longer.peak, larger.peak)
    assert small.flops < min(longer.flops, larger.flops)
