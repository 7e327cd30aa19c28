"""What rerun is given, read back from the recording by rerun's own program."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.offline.run import run
from flow3r_ros.report.page import load_record
from flow3r_ros.wire.tum import write_tum
from test.cases.workshop import flow3r
from test.offline.factory import clip_folder, small_clip
from test.offline.test_run import engine

pytest.importorskip("rerun")


def entities(path: Path) -> set[str]:
    program = Path(sys.executable).with_name("rerun")
    command = [str(program), "rrd", "print", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=280)
    return set(re.findall(r"/((?:world|state|scale|confidence)[a-z0-9/_]*)", done.stdout))


def test_a_run_is_watched_and_looked_at_again(tmp_path: Path) -> None:
    clip = small_clip()
    clip_folder(tmp_path / "clip", clip)
    stamps = np.array([round(1e9 * (100 + index / 10)) for index in range(len(clip.rgb))])
    write_tum(tmp_path / "clip" / "groundtruth.tum", Trajectory(stamps, clip.poses))
    live, again, out = tmp_path / "live.rrd", tmp_path / "again.rrd", tmp_path / "out"
    with RerunLog(live, "clip") as watch, open_source(tmp_path / "clip") as source:
        run(source, engine(), out, quiet=True, watch=watch)
    both = {"world/camera", "world/camera/image/depth", "world/way/0"}
    assert entities(live) >= both | {
        "world/camera/points",
        "world/keyframes",
        "world/camera/image/corners",
        "world/camera/image/tracks",
        "world/truth",
        "state",
        "confidence",
    }
    record = load_record(out)
    record.mapped = Trajectory(record.stamps_ns, record.poses)
    record.loops = record.stamps_ns[[[0, 5]]]
    record.save(out / "record.npz")
    done = flow3r("view", out, "--rerun", again)
    assert done.code == 0, done.err
    assert f"wrote {again}" in done.out
    assert entities(again) >= both | {"world/map", "world/truth", "world/way_in_map", "world/loops"}
    kept = again.read_bytes()
    refusal = flow3r("view", tmp_path, "--rerun", again).refusal
    assert "is no output of a run (record.npz is missing)" in refusal
    assert again.read_bytes() == kept
    assert {path.name for path in tmp_path.iterdir()} == {"clip", "out", live.name, again.name}
    assert "it is a folder" in flow3r("view", out, "--rerun", tmp_path).refusal
