"""Windows of a real clip with true poses and depth are samples like any other."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.posed_clips import posed_windows
from test.evaluation.clip_samples import write_clip

FRAMES, EVERY = 12, 2


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every second frame has a depth: a ramp from 1 to 4 m, and 30 m in its last rows."""
    folder = tmp_path_factory.mktemp("posed") / "clip"
    write_clip(folder, frames=FRAMES)
    (folder / "depth").mkdir()
    ramp = np.tile(np.linspace(1000, 4000, 320), (240, 1)).astype(np.uint16)
    ramp[-40:] = 30_000
    lines = []
    for index in range(0, FRAMES, EVERY):
        cv2.imwrite(str(folder / "depth" / f"{index}.png"), ramp)
        lines.append(f"{index} depth/{index}.png\n")
    (folder / "depth.txt").write_text("# frame file\n" + "".join(lines))
    camera = json.loads((folder / "camera.json").read_text())
    (folder / "camera.json").write_text(json.dumps({**camera, "depth_scale": 1000}))
    return folder


def test_frames_with_depth_make_windows(clip: Path) -> None:
    windows = list(posed_windows(clip, (56, 42), length=3))
    assert len(windows) == 2
    (sample,) = windows[1]
    assert sample.rgb.shape == (3, 42, 56, 3)
    assert sample.depth is not None
    assert sample.poses is not None
    np.testing.assert_allclose(sample.depth[0, 5], np.linspace(1, 4, 56), atol=0.05)
    assert np.isnan(sample.depth[:, -3:]).all(), "beyond what counts"
    assert not np.allclose(sample.poses[0], sample.poses[2])
    assert sample.evidence is not None


def test_only_the_asked_stretch_is_read(clip: Path) -> None:
    assert len(list(posed_windows(clip, (56, 42), length=3, first=2))) == 1
    assert not list(posed_windows(clip, (56, 42), length=3, last=4))


def test_a_clip_without_depth_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="depth"):
        list(posed_windows(tmp_path, (56, 42)))
