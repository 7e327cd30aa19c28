"""True depth is compared in the run's own view, beside one depth for every pixel."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.clip_depth import (
    KINECT_OFFSET,
    measure_confidence,
    measure_depth,
    median_depth,
)
from flow3r_ros.geometry.depth_map import registered_depth
from flow3r_ros.types import Camera


def test_true_depth_is_compared_in_the_runs_own_view(tmp_path: Path) -> None:
    clip, run = tmp_path / "clip", tmp_path / "run"
    (clip / "depth").mkdir(parents=True)
    run.mkdir()
    meta = {
        "width": 64,
        "height": 48,
        "fx": 50.0,
        "fy": 50.0,
        "cx": 31.5,
        "cy": 23.5,
        "distortion_model": "none",
        "distortion": [],
    }
    (clip / "camera.json").write_text(json.dumps({**meta, "depth_scale": 1000}))
    assert measure_depth(clip, run) == measure_confidence(clip, run) == {}
    (clip / "depth.txt").write_text("# frame file\n0 depth/000000.png\n5 depth/000005.png\n")
    ramp = np.tile(np.linspace(1000, 4000, 64), (48, 1)).astype(np.uint16)
    for index in (0, 5):
        cv2.imwrite(str(clip / "depth" / f"{index:06d}.png"), ramp)
    small = cv2.resize(ramp.astype(np.float32), (32, 24), interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(run / "000005.png"), np.rint(small * 3).astype(np.uint16))
    grid = {"width": 32, "height": 24, "fx": 25.0, "fy": 25.0, "cx": 15.5, "cy": 11.5}
    (run / "meta.json").write_text(
        json.dumps(
            {"scale": 500.0, "camera": {**grid, "distortion_model": "none", "distortion": []}}
        )
    )
    result = measure_depth(clip, run)
    assert result["frames"] == 1
    assert result["abs_rel"] < 0.02
    assert result["scale"] == pytest.approx(500 / 3000, rel=0.02)
    metres = np.linspace(1, 4, 64)
    assert result["constant"]["abs_rel"] == pytest.approx(
        np.mean(np.abs(np.median(metres) - metres) / metres), rel=0.05
    )
    whole = tmp_path / "whole"
    shutil.copytree(run, whole / "depth")
    (whole / "confidence").mkdir()
    cv2.imwrite(str(whole / "confidence" / "000005.png"), np.full((24, 32), 204, np.uint8))
    calibrated = measure_confidence(clip, whole)
    assert (calibrated["claimed"], calibrated["right"]) == (pytest.approx(0.8), 1.0)
    assert calibrated["error"] == pytest.approx(0.2)
    assert median_depth(run) == pytest.approx(3 * 2500 / 500, rel=0.02)
    (run / "000005.png").unlink()
    assert median_depth(run) is None
    with pytest.raises(EvaluationError, match="no depth map"):
        measure_depth(clip, run)


def test_a_depth_lens_beside_the_colour_lens_is_moved_into_its_view() -> None:
    colour = Camera(64, 48, 50.0, 50.0, 31.5, 23.5)
    lens = Camera(128, 96, 112.0, 112.0, 63.5, 47.5)
    x, y = (grid / 112.0 for grid in np.meshgrid(np.arange(128) - 63.5, np.arange(96) - 47.5))
    on_box = (np.abs(x - 0.05 + 0.02) < 0.2) & (np.abs(y) < 0.2)
    depth = np.where(on_box, 1.0, 3.0).astype(np.float32)
    seen = registered_depth(depth, lens, colour, (-0.05, 0.0, 0.0))
    rays = (np.arange(64) - 31.5) / 50.0
    row = seen[24]
    assert np.isfinite(seen).mean() > 0.8
    near = np.flatnonzero(row == 1.0)
    assert rays[near[0]] == pytest.approx(0.03 - 0.2 - 0.05, abs=0.025)
    assert rays[near[-1]] == pytest.approx(0.03 + 0.2 - 0.05, abs=0.025)
    gap = np.flatnonzero(np.isnan(row[8:56])) + 8
    assert len(gap)
    assert (gap > near[-1]).all(), "what the near box hides from the depth lens stays unknown"


def test_unregistered_depth_is_moved_and_said(tmp_path: Path) -> None:
    clip, run = tmp_path / "clip", tmp_path / "run"
    (clip / "depth").mkdir(parents=True)
    run.mkdir()
    lens = {"fx": 112.0, "fy": 112.0, "cx": 63.5, "cy": 47.5}
    meta = {"width": 128, "height": 96, "fx": 100.0, "fy": 100.0, "cx": 63.5, "cy": 47.5}
    more = {"depth_scale": 1000, "distortion_model": "none", "distortion": []}
    tree = {**meta, **more, "depth_intrinsics": lens, "depth_registered_to_color": False}
    (clip / "camera.json").write_text(json.dumps(tree))
    (clip / "depth.txt").write_text("0 depth/000000.png\n")
    cv2.imwrite(str(clip / "depth" / "000000.png"), np.full((96, 128), 2000, np.uint16))
    cv2.imwrite(str(run / "000000.png"), np.full((24, 32), 2000, np.uint16))
    grid = {"width": 32, "height": 24, "fx": 25.0, "fy": 25.0, "cx": 15.5, "cy": 11.5}
    (run / "meta.json").write_text(
        json.dumps(
            {"scale": 1000, "camera": {**grid, "distortion_model": "none", "distortion": []}}
        )
    )
    assert measure_depth(clip, run)["depth_offset"] == list(KINECT_OFFSET)
    tree["depth_offset"] = [0.01, 0.0, 0.0]
    (clip / "camera.json").write_text(json.dumps(tree))
    assert measure_depth(clip, run)["depth_offset"] == [0.01, 0.0, 0.0]
