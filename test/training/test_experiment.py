"""The controlled experiment: every row sees what it should, and the table says mean, spread and the published numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.experiment import HalfLabelled, experiment, render_table, rows_of
from flow3r_ros.training.scene_shards import training_clip, write_shards


def test_rows_are_those_of_the_paper_plus_more_clips() -> None:
    rows = {row.name: row for row in rows_of(48)}
    assert rows["3d-sup"].unlabelled == 0
    assert rows["3d-sup++"].labels
    assert [rows[name].unlabelled for name in ("flow-factored", "flow-factored 3x", "flow-factored 10x")] == [48, 144, 480]
    assert {rows[f"flow-{kind}"].kind for kind in ("factored", "projective", "tracking")} == {"factored", "projective", "tracking"}


def test_unlabelled_clips_bring_flow_but_no_depth_or_poses() -> None:
    clips = [training_clip(seed, [(56, 42)], "photographs", frames=2)[0] for seed in range(3)]
    for step in range(5):
        first, second = HalfLabelled(clips[:1], clips[1:], keep_labels=False, seed=1).batch(step)
        assert first.depth is not None
        assert second.depth is None
        assert second.poses is None
        assert np.any(second.covisibility > 0)
    assert HalfLabelled(clips[:1], clips[1:], keep_labels=True, seed=1).batch(0)[1].depth is not None
    assert HalfLabelled(clips[:1], [], keep_labels=False, seed=1).batch(0)[1].depth is not None


def test_too_few_clips_are_said_before_anything_is_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flow3r_ros.training.scene_shards._CLIPS_PER_SHARD", 2)
    monkeypatch.setattr("flow3r_ros.training.scene_shards.SMALL_GRIDS", ((56, 42),))
    list(write_shards(tmp_path / "data", 0, 1, "photographs"))
    small = tmp_path / "data" / "small"
    with pytest.raises(TrainingError, match="needs 12 clips, there are 2"):
        experiment(small, small, tmp_path / "out", labelled=2, unlabelled=1)
    assert not list((tmp_path / "out").glob("*"))


def test_the_table_shows_mean_spread_and_published_numbers() -> None:
    results = [{"row": "3d-sup", "seed": 1, "rra_5": 0.5, "abs_rel": 0.4}, {"row": "3d-sup", "seed": 2, "rra_5": 0.7, "abs_rel": 0.4}]
    table = render_table([*results, {"row": "flow-factored 3x", "seed": 1, "rra_5": 0.9}])
    assert "| 3d-sup | 2 | 0.600 ± 0.100 |" in table
    assert "0.750 / 0.693" in table
    assert "| flow-factored 3x | 1 | 0.900 |" in table
