"""The head without patches: nothing of a patch shows in its maps, and its features travel with the
tokens."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError

from flow3r_ros.network.config import FineHeadConfig
from flow3r_ros.network.fine_head import CELLS, CHANNELS, PACKED, FineHead, pack, unpack
from flow3r_ros.network.heads import PatchHead
from flow3r_ros.training.validation import border_step
from test.network.factories import COLUMNS, ROWS, evidence, images, tiny_config, tiny_model

PATCH = 14
GRID = ROWS // PATCH, COLUMNS // PATCH


def features(frames: int = 2) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.randn(frames, channels, GRID[0] * cells, GRID[1] * cells, generator=generator)
        for channels, cells in zip(CHANNELS, CELLS, strict=True)
    ]


def test_features_come_out_as_they_went_in() -> None:
    packed = pack(features())
    assert packed.shape == (2, GRID[0] * GRID[1], PACKED)
    for ours, theirs in zip(unpack(packed, *GRID), features(), strict=True):
        assert torch.equal(ours, theirs)


def test_patches_leave_no_trace_in_depth() -> None:
    torch.manual_seed(0)
    tokens = torch.randn(8, 48, 32)
    head = FineHead(32, FineHeadConfig())
    levels = [torch.zeros(8, c, 6 * n, 8 * n) for c, n in zip(CHANNELS, CELLS, strict=True)]
    with torch.no_grad():
        fine = head(tokens, pack(levels), (84, 112), PATCH)[:, 2]
        blocky = PatchHead(32, 1, PATCH)(tokens, 6, 8)[:, 0]
    worst = border_step(fine.exp(), PATCH)
    assert 0.85 < worst < 1.25, "tokens that have nothing to do with each other are the worst case"
    mean = torch.nn.functional.avg_pool2d(blocky[:, None], PATCH).repeat_interleave(PATCH, 2)
    steps = mean.repeat_interleave(PATCH, 3) + 0.02 * blocky[:, None]
    assert border_step(steps.exp(), PATCH) > 2, "the measure sees patches where there are some"


def test_it_starts_smooth_and_every_part_of_it_learns() -> None:
    head = FineHead(32, FineHeadConfig())
    head.start_smooth()
    tokens, finer = torch.randn(1, 12, 32), pack(features(1))
    first = head(tokens, finer, (ROWS, COLUMNS), PATCH)
    assert torch.equal(first, head(tokens, 0 * finer, (ROWS, COLUMNS), PATCH))
    torch.nn.init.normal_(head.out.weight)
    head(tokens, finer, (ROWS, COLUMNS), PATCH).square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in head.parameters())


def test_cached_tokens_and_wanted_frames_give_what_the_plain_forward_gives() -> None:
    model = tiny_model(evidence=True, convolutional=True, fine=True)
    pictures, given = images(4), evidence(4)
    with torch.no_grad():
        full = model(pictures, torch.tensor([[[3, 1]]]), given)
        tokens = model.encode_images(pictures[0])[None]
        assert tokens.shape[-1] == 32 + PACKED
        pair = torch.tensor([[[3, 1]]])
        part = model.decode(tokens, (ROWS, COLUMNS), pair, given, wanted=pair[0, 0])
    for name in ("local_points", "conf", "camera_poses", "points"):
        torch.testing.assert_close(part[name], full[name][:, [3, 1]], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(part["flow"], full["flow"], atol=1e-4, rtol=1e-3)


def test_bfloat16_keeps_float32_outputs() -> None:
    model = tiny_model(convolutional=True, fine=True)
    with torch.no_grad():
        exact = model(images(2))["local_points"]
        model.lower_precision(torch.bfloat16)
        rounded = model(images(2))["local_points"]
    assert rounded.dtype is torch.float32
    torch.testing.assert_close(rounded, exact, atol=0.1, rtol=0.1)


def test_it_needs_a_convolutional_embedding() -> None:
    with pytest.raises(ValidationError, match="convolutional patch embedding"):
        type(tiny_config()).model_validate(
            tiny_config().model_dump() | {"fine_head": {"widths": (8, 8, 8)}}
        )
