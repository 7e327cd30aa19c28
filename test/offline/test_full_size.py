"""The engine with the official network at its full size (1 001 M parameters, random weights, so
nothing is claimed of the result), end to end on a CPU at low resolution (`make test-thorough`)."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from flow3r_ros.config import Config
from flow3r_ros.network.catalog import InputSpec, Manifest
from flow3r_ros.network.config import preset
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.runner import Runner
from flow3r_ros.offline.run import run_to_folder
from test.offline.factory import clip_folder, small_clip

pytestmark = pytest.mark.thorough
FRAMES = 10
MOST_MB = 8000
"""of the whole process: 4.0 GB are the weights in float32"""


def test_the_full_size_runs_on_a_cpu(tmp_path: Path) -> None:
    torch.manual_seed(0)
    manifest = Manifest(
        name="official_size",
        source="random",
        license="none",
        sha256="",
        parameters=0,
        input=InputSpec(resolution=(112, 84), window=6),
    )
    opened: list[Runner] = []

    def open_random(_: object) -> Runner:
        opened.append(Runner(Flow3r(preset("large")).eval(), manifest))
        return opened[0]

    clip = clip_folder(tmp_path / "clip", small_clip(FRAMES))
    summary = run_to_folder(clip, tmp_path / "out", Config(), open_random, quiet=True)
    assert sum(parameter.numel() for parameter in opened[0].model.parameters()) > 1e9
    assert summary["frames_estimated"] == FRAMES
    assert summary["peak_rss_mb"] < MOST_MB
    assert summary["stage_ms"]["network"] > 0
    written = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert written["model"] == "official_size"
    for line in (tmp_path / "out" / "trajectory.tum").read_text().splitlines():
        assert np.isfinite([float(number) for number in line.split()]).all()
