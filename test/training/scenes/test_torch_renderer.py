"""The torch renderer shows what the numpy renderer shows."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.scenes import shards as scene_shards
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip


@pytest.mark.parametrize(
    ("seed", "layout"), [(1, "room"), (2, "street"), (3, "clutter"), (4, "clutter")]
)
def test_depth_flow_covisibility_and_pictures_are_those_of_the_numpy_renderer(
    seed: int, layout: str
) -> None:
    ours, theirs = (
        render_clip(
            seed,
            3,
            112,
            84,
            layout=layout,
            movers=2,
            noise=0.0,
            textures="photographs",
            device=device,
        )  # type: ignore[arg-type]
        for device in ("cpu", None)
    )
    _agree(ours, theirs)
    _agree(ours.resized(56, 42), theirs.resized(56, 42))
    same = ours.primitive == theirs.primitive
    apart = np.abs(ours.rgb.astype(int) - theirs.rgb).max(axis=-1)[same]
    assert np.median(apart) <= 1
    assert np.mean(apart > 6) < 0.01


def _agree(ours: SceneClip, theirs: SceneClip) -> None:
    same = ours.primitive == theirs.primitive
    assert same.mean() > 0.999
    np.testing.assert_allclose(ours.depth[same], theirs.depth[same], rtol=1e-4)
    for source, target in ((0, 2), (2, 0)):
        flow, covisible = ours.flow(source, target)
        expected, visible = theirs.flow(source, target)
        assert np.mean(covisible == visible) > 0.998
        both = covisible & visible & same[source]
        assert both.any()
        np.testing.assert_allclose(flow[both], expected[both], atol=0.02)


def test_everything_random_is_the_same_on_both() -> None:
    ours, theirs = render_clip(7, 2, 56, 42, device="cpu"), render_clip(7, 2, 56, 42)
    np.testing.assert_array_equal(ours.poses, theirs.poses)
    assert ours.camera == theirs.camera
    assert np.median(np.abs(ours.rgb.astype(int) - theirs.rgb)) <= 1


def test_shards_are_rendered_where_the_option_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scene_shards, "_CLIPS_PER_SHARD", 1)
    for name, options in (("torch", ["--device", "cpu"]), ("numpy", [])):
        monkeypatch.setattr(
            sys, "argv", ["scene_shards", str(tmp_path / name), "--shards", "1", *options]
        )
        scene_shards.main()
    ours, theirs = (
        next(scene_shards.SceneShards([tmp_path / name / "small"], 0, 1).all(1))[0]
        for name in ("torch", "numpy")
    )
    assert ours.depth is not None
    assert theirs.depth is not None
    assert np.median(np.abs(ours.depth / theirs.depth - 1)) < 1e-3
    assert np.mean(ours.covisibility == theirs.covisibility) > 0.99


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_device_is_said_in_one_line() -> None:
    with pytest.raises(TrainingError, match="cannot render on cuda"):
        render_clip(1, 2, 56, 42, device="cuda")
