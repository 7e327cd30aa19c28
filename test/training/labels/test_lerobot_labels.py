"""A LeRobot dataset as training data: labelled like any recording, an episode never joined to the
next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import InputError
from flow3r_ros.training.data import open_data
from flow3r_ros.training.labels.clip_store import read_clip
from flow3r_ros.training.labels.labelling import label
from test.datasets.lerobot_factory import write_lerobot
from test.training.clip_factory import scene
from test.training.labels.test_labelling import settings
from test.training.test_data import settings as data_settings


def test_clips_are_of_one_episode_each(tmp_path: Path) -> None:
    """Two episodes of the same place: nothing but time tells where one ends."""
    made = scene(frames=5)
    episodes = [list(made.rgb), list(made.rgb)]
    root = write_lerobot(tmp_path / "data", episodes, camera=made.camera, side=True)
    with pytest.raises(InputError, match="several cameras"):
        label([root], tmp_path / "cache", settings())
    report = label([root], tmp_path / "cache", settings(), topic="front")
    assert report.frames["frames"] == 10
    assert report.frames["cuts"] == 1
    assert report.labelled > 0
    clips = [read_clip(path) for path in sorted((tmp_path / "cache").glob("clips/**/*.shard"))]
    assert len(clips) == 2
    for clip in clips:
        assert np.ptp(clip.stamps_ns) <= 400_000_000
        assert clip.camera.fx == pytest.approx(made.camera.fx)
    again = label([root], tmp_path / "cache", settings(), topic="front")
    assert (again.labelled, again.reused) == (0, report.labelled)


def test_training_takes_it_as_it_is(tmp_path: Path) -> None:
    made = scene(seed=9, frames=12)
    root = write_lerobot(tmp_path / "data", [list(made.rgb[:6]), list(made.rgb[6:])])
    (root / "LICENSE").write_text("Apache License\nVersion 2.0")
    data = open_data(
        [root], data_settings(), seed=1, clips_per_step=1, pairs=2, workspace=tmp_path / "work"
    )
    assert data.source.batch(0)[0].rgb.shape[0] == 3
    (recording,) = data.provenance["recordings"]
    assert (recording["frames"], recording["license"]) == (12, "Apache-2.0")
