"""The map of a run: beside the odometry, never in it."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.config import SlamSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import ConfigError
from flow3r_ros.geometry.camera_file import save_camera
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.mapped import MAP_FILE, map_of_run
from flow3r_ros.offline.run import run, run_to_folder
from flow3r_ros.wire.tum import read_tum
from test.odometry.plane import CAMERA, Network, picture, settings
from test.offline.factory import at_stop, contents, write_pictures

FRAMES = 16


def clip_of_the_plane(folder: Path) -> Path:
    if not (folder / "clip").exists():
        pictures = [picture(index) for index in range(FRAMES)]
        stamps = [f"{100 + index / 30:.6f}" for index in range(FRAMES)]
        write_pictures(folder / "clip" / "frames", pictures, stamps)
        save_camera(CAMERA, folder / "clip" / "camera.json")
    return folder / "clip"


def run_clip(folder: Path, slam: SlamSettings, refine: bool) -> Path:
    clip = clip_of_the_plane(folder)
    output = folder / f"out_{slam.enabled}_{refine}"
    with (
        open_source(clip) as source,
        map_of_run(slam, refine, quiet=True) as mapped,
        Engine(
            Network(range(FRAMES)), settings(), mapped.mapper.take if mapped else None
        ) as engine,
    ):
        run(source, engine, output, quiet=True, mapped=mapped)
    return output


def test_the_odometry_is_the_same_with_a_map_and_refined(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow3r_ros.slam.tracks.FEATURES", 300)
    pytest.importorskip("gtsam")
    pytest.importorskip("pycolmap")
    plain = run_clip(tmp_path, SlamSettings(), False)
    assert not (plain / MAP_FILE).exists()
    both = run_clip(tmp_path, SlamSettings(enabled=True), True)
    for name in ("trajectory.tum", "states.csv", "cloud.ply"):
        assert (both / name).read_bytes() == (plain / name).read_bytes()
    summary = json.loads((both / "summary.json").read_text())
    assert summary["loops"] == {"closed": 0, "refused": {}, "evidence": []}
    assert summary["frames_in_map"] == FRAMES
    refined = summary["refinement"]
    assert refined["placed"] == refined["pictures"] == FRAMES
    assert refined["error_px"]["after"] < 1.0
    assert {"map", "refine", "bundle", "decode", "write"} <= summary["stage_ms_per_frame"].keys()
    page = (both / "report.html").read_text(encoding="utf-8")
    assert "The map" in page
    assert "reprojection" in page
    assert "<td>refine</td>" in page


def test_a_map_without_loops_lies_where_the_odometry_does(tmp_path: Path) -> None:
    pytest.importorskip("gtsam")
    output = run_clip(tmp_path, SlamSettings(enabled=True), False)
    odom, placed = read_tum(output / "trajectory.tum"), read_tum(output / MAP_FILE)
    assert np.array_equal(odom.stamps_ns, placed.stamps_ns)
    path = float(np.linalg.norm(np.diff(odom.poses[:, :3, 3], axis=0), axis=1).sum())
    assert np.abs(odom.poses[:, :3, 3] - placed.poses[:, :3, 3]).max() < 0.05 * path


def test_what_is_not_installed_is_said_before_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gtsam", None)
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    with (
        pytest.raises(ConfigError, match=r"needs GTSAM.*pip install"),
        map_of_run(SlamSettings(enabled=True), False, True),
    ):
        pass
    with (
        pytest.raises(ConfigError, match=r"needs pycolmap.*pip install"),
        map_of_run(SlamSettings(), True, True),
    ):
        pass


def test_a_run_with_a_map_goes_on_to_the_same_map(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The part that Ctrl-C leaves has a map of its own, which gives way, and is not refined."""
    pytest.importorskip("gtsam")
    pytest.importorskip("pycolmap")
    monkeypatch.setattr("flow3r_ros.slam.tracks.FEATURES", 300)
    clip = clip_of_the_plane(tmp_path)
    with_map = settings().model_copy(update={"slam": SlamSettings(enabled=True)})

    def go(name: str, resume: bool | None = None, refine: bool = False) -> Path:
        run_to_folder(
            clip, tmp_path / name, with_map, lambda _: Network(range(FRAMES)), quiet=True,
            on_interrupt="keep", resume=resume, refine=refine,
        )  # fmt: skip
        return tmp_path / name

    whole = contents(go("whole"))
    assert {MAP_FILE, "map/map.json", "map/keyframes.safetensors"} <= whole.keys()
    at_stop(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    part = contents(go("part"))
    assert part[MAP_FILE] != whole[MAP_FILE]
    assert "map/map.json" in part
    assert contents(go("part", resume=True)) == whole
    at_stop(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
    summary = json.loads((go("refined", refine=True) / "summary.json").read_text())
    assert summary["refinement"] == {"placed": 0, "why": "the run was interrupted"}
    summary = json.loads((go("refined", True, refine=True) / "summary.json").read_text())
    assert summary["refinement"]["pictures"] == FRAMES
