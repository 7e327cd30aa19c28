"""The run folder holds what the contract says, agrees with itself, and appears whole or not at
all."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.config import load_config
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import InputError, OutputError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.odometry.model_defaults import fitted_to
from flow3r_ros.offline.depth_files import DepthFiles, seconds
from flow3r_ros.offline.from_video import bag_from_video
from flow3r_ros.offline.results import RunFolder
from flow3r_ros.offline.run import run
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Estimate, TrackingState
from flow3r_ros.wire.tum import read_tum
from test.odometry.oracle import Oracle, frames_of
from test.offline.factory import clip_folder, small_clip, small_config, write_pictures

KEYS = {
    "frames_in",
    "frames_estimated",
    "frames_dropped",
    "seams",
    "seams_refused",
    "camera",
    "segments",
    "scale_state",
    "unit",
    "notes",
    "tracking_states",
    "pose_sources",
    "lost_spans",
    "relocalisations",
    "fps",
    "latency_ms",
    "stage_ms",
    "stage_ms_per_frame",
    "peak_rss_mb",
    "device",
    "model",
    "weights_sha256",
    "weights_license",
}


def engine(frames: int = 8) -> Engine:
    return Engine(Oracle(small_clip(frames)), small_config())


def run_clip(tmp_path: Path, name: str = "out", frames: int = 8) -> Path:
    clip = tmp_path / "clip"
    if not clip.exists():
        clip_folder(clip, small_clip(frames))
    with open_source(clip) as source:
        run(source, engine(frames), tmp_path / name, quiet=True)
    return tmp_path / name


def estimates_of(clip: Path, frames: int = 8) -> list[Estimate]:
    """What the engine says of the clip of `run_clip`."""
    with open_source(clip) as source, engine(frames) as odometry:
        found = [estimate for frame in source for estimate in odometry.step(frame)]
        return [*found, *odometry.finish()]


def test_run_folder_keeps_the_contract(tmp_path: Path) -> None:
    out = run_clip(tmp_path)
    summary = json.loads((out / "summary.json").read_text())
    assert set(summary) == KEYS
    assert summary["frames_in"] == summary["frames_estimated"] == 8
    assert set(summary["latency_ms"]) == {"p50", "p95"}
    assert sum(summary["tracking_states"].values()) == sum(summary["pose_sources"].values()) == 8
    assert summary["model"] == "oracle"
    assert summary["unit"] == "units", "nobody measured metres"
    assert (
        summary["stage_ms"].keys() == summary["stage_ms_per_frame"].keys() >= {"network", "write"}
    )
    assert summary["segments"] == [{"first": 0, "last": 7, "reason": "start"}]
    assert summary["lost_spans"] == []
    assert summary["relocalisations"] == 0
    lines = (out / "trajectory.tum").read_text().splitlines()
    assert [line.split()[0] for line in lines] == [
        f"{100 + index // 10}.{index % 10}00000000" for index in range(8)
    ]
    assert len(read_tum(out / "trajectory.tum").poses) == 8
    with (out / "states.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["stamp_ns"] for row in rows] == [str(10**11 + i * 10**8) for i in range(8)]
    assert {row["segment"] for row in rows} == {"0"}
    assert Counter(row["state"] for row in rows) == summary["tracking_states"]
    assert not (out / "confidence").exists()
    used = fitted_to(Oracle(small_clip()), small_config())
    assert load_config(out / "run.yaml") == used, "run.yaml repeats the run"
    assert (out / "run.yaml").read_text().startswith("# notes")
    assert (out / "report.html").stat().st_size > 5000
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_lost_frames_are_listed_and_confidence_is_saved_on_request(tmp_path: Path) -> None:
    """The engine's estimates, with what a jump into another place would make of them."""
    record = RunRecord("cut")
    folder = RunFolder(tmp_path, record, save_confidence=True)
    first = one_estimate()
    lost = {"tracking_state": TrackingState.LOST, "reason": 'another place, "unseen"'}
    searching = {"tracking_state": TrackingState.RELOCALIZING}
    plan = [{}, {}, lost, searching, {}, lost, {"segment": 1}, {"segment": 1, "reason": "blurred"}]
    for index, changes in enumerate(plan):
        stamp = first.stamp_ns + index * 10**8
        folder.add(replace(first, frame_id=2 * index, stamp_ns=stamp, **changes))
    folder.close()
    assert len((tmp_path / "trajectory.tum").read_text().splitlines()) == 5
    with (tmp_path / "states.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["segment"] for row in rows] == list("00000011")
    assert [row["reason"] for row in rows][2] == lost["reason"]
    assert record.history.segments() == [
        {"first": 0, "last": 10, "reason": "start"},
        {"first": 12, "last": 14, "reason": lost["reason"]},
    ]
    assert record.history.lost_spans() == [
        {"first": 4, "last": 6, "reason": lost["reason"]},
        {"first": 10, "last": 10, "reason": lost["reason"]},
    ]
    assert record.history.relocalisations() == 1
    image = cv2.imread(str(tmp_path / "confidence" / "000004.png"), cv2.IMREAD_UNCHANGED)
    assert image.dtype == np.uint8
    known = np.isfinite(first.depth)
    np.testing.assert_allclose(image[known] / 255, first.confidence[known], atol=1 / 254)
    assert not image[~known].any()


def test_depth_and_cloud_can_be_read_back(tmp_path: Path) -> None:
    out = run_clip(tmp_path)
    meta = json.loads((out / "depth" / "meta.json").read_text())
    names = sorted(path.name for path in (out / "depth").glob("*.png"))
    assert names == sorted(meta["stamps"]) == [f"{index:06d}.png" for index in range(8)]
    raw = cv2.imread(str(out / "depth" / names[3]), cv2.IMREAD_UNCHANGED)
    assert raw.dtype == np.uint16
    assert raw.shape == (meta["camera"]["height"], meta["camera"]["width"])
    depth = raw / meta["scale"]
    estimated = estimates_of(tmp_path / "clip")[3].depth
    assert (raw > 0).mean() > 0.8
    np.testing.assert_array_equal(raw > 0, np.isfinite(estimated))
    np.testing.assert_allclose(depth[raw > 0], estimated[raw > 0], rtol=2e-3)
    header, _, body = (out / "cloud.ply").read_bytes().partition(b"end_header\n")
    count = int(header.split(b"element vertex ")[1].split(b"\n")[0])
    assert count > 100
    assert len(body) == count * 19


def test_bad_stamps_and_sizes_are_counted_not_fatal(tmp_path: Path) -> None:
    clip = small_clip()
    images = [*clip.rgb[:5], np.zeros((60, 80, 3), np.uint8), *clip.rgb[5:]]
    stamps = ["0", "0.1", "0.1", "0.05", "0.3", "0.4", "0.5", "0.6", "0.7"]
    write_pictures(tmp_path / "frames", images, stamps)
    with open_source(tmp_path / "frames") as source:
        oracle = Oracle(clip, order=[0, 1, 2, 3, 4, 0, 5, 6, 7])
        summary = run(source, Engine(oracle, small_config()), tmp_path / "out", quiet=True)
    assert summary["frames_dropped"] == {
        "repeated_stamp": 1,
        "non_monotonic_stamp": 1,
        "resolution_change": 1,
    }
    assert summary["frames_in"] == 9
    assert summary["frames_estimated"] == 6


def test_what_a_damaged_bag_lost_stands_in_the_summary(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip", small_clip())
    bag_from_video(tmp_path / "clip", tmp_path / "bag", quiet=True)
    mcap = tmp_path / "bag" / "bag.mcap"
    whole = mcap.read_bytes()
    mcap.write_bytes(whole[: 3 * len(whole) // 4])
    with open_source(tmp_path / "bag") as source:
        summary = run(source, engine(), tmp_path / "out", quiet=True)
    assert 0 < summary["frames_estimated"] < 8
    assert any("torn at byte" in note for note in summary["notes"])
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["notes"] == summary["notes"]
    assert "torn at byte" in (tmp_path / "out" / "report.html").read_text()


def test_existing_output_and_useless_input(tmp_path: Path) -> None:
    out = run_clip(tmp_path)
    with (
        open_source(tmp_path / "clip") as source,
        pytest.raises(OutputError, match="exists already"),
    ):
        run(source, engine(), out, quiet=True)
    folder = write_pictures(tmp_path / "bad", [small_clip().rgb[0]], ["0"])
    (folder / "frame_0.png").write_bytes(b"no")
    with open_source(folder) as source, pytest.raises(InputError, match="no frame could be used"):
        run(source, engine(), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def in_child(tmp_path: Path, prologue: str) -> subprocess.Popen[str]:
    clip_folder(tmp_path / "clip", small_clip())
    code = (
        f"{prologue}\nfrom pathlib import Path\nfrom test.offline.test_run import "
        "engine, open_source, run\n"
        f"with open_source(Path({str(tmp_path / 'clip')!r})) as source:\n"
        f"    run(source, engine(), Path({str(tmp_path / 'out')!r}), quiet=True)\n"
    )
    environment = dict(os.environ, OMP_NUM_THREADS="1")
    return subprocess.Popen(
        [sys.executable, "-c", code], stderr=subprocess.PIPE, text=True, env=environment
    )


def test_full_disk_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    prologue = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    prologue += (
        "import cv2, numpy, flow3r_ros.offline.run, test.offline.test_run as t; t.small_clip()\n"
    )
    prologue += "resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))"
    assert resource.RLIMIT_FSIZE is not None
    process = in_child(tmp_path, prologue)
    _, stderr = process.communicate(timeout=280)
    assert process.returncode == 1
    assert "OutputError" in stderr.splitlines()[-1]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip"]


def test_interrupt_leaves_nothing(tmp_path: Path) -> None:
    prologue = (
        "import flow3r_ros.offline.results as r, os, signal\n"
        "signal.signal(signal.SIGINT, "
        "signal.default_int_handler)\n"  # a shell's background job starts with SIGINT ignored
        "add = r.RunFolder.add\n"
        "def interrupted(self, estimate):\n"
        "    add(self, estimate)\n"
        "    if estimate.frame_id == 3: os.kill(os.getpid(), signal.SIGINT)\n"
        "r.RunFolder.add = interrupted"
    )
    process = in_child(tmp_path, prologue)
    _, stderr = process.communicate(timeout=280)
    assert "KeyboardInterrupt" in stderr.splitlines()[-1]
    assert process.returncode in (1, 130, -signal.SIGINT)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip"]


def one_estimate() -> Estimate:
    return engine().step(frames_of(small_clip())[0])[0]


def test_depth_scale_follows_depth_that_outgrows_it(tmp_path: Path) -> None:
    estimate = one_estimate()
    files = DepthFiles(tmp_path / "depth")
    files.add(replace(estimate, depth=np.full_like(estimate.depth, np.nan)))
    files.add(replace(estimate, frame_id=1, depth=np.full_like(estimate.depth, 1.5)))
    first = files.scale
    far = np.full_like(estimate.depth, 700.0)
    far[0, 0] = np.nan
    files.add(replace(estimate, frame_id=2, depth=far))
    files.finish()
    assert files.scale < first
    read = [
        cv2.imread(str(tmp_path / "depth" / f"{index:06d}.png"), cv2.IMREAD_UNCHANGED) / files.scale
        for index in range(3)
    ]
    assert not read[0].any()
    np.testing.assert_allclose(read[1], 1.5, rtol=0.02)
    np.testing.assert_allclose(read[2][1:], 700.0, rtol=0.01)
    assert read[2][0, 0] == 0


def test_seconds_are_exact() -> None:
    assert seconds(1_700_000_000_123_456_789) == "1700000000.123456789"
    assert seconds(5) == "0.000000005"
    assert seconds(-1_500_000_000) == "-1.500000000"
