"""Labelling on a local Ray with two workers, one of which is killed: every pair is labelled, and
only its unfinished ones twice."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import psutil
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.labels.labelling import LabelReport, label
from flow3r_ros.training.labels.ray_engine import run_on_ray
from test.training.clip_factory import scene, write_images
from test.training.labels.test_labelling import all_units, settings

pytest.importorskip("ray", reason="the fleet extra (ray) is not installed")


def ray_workers() -> list[psutil.Process]:
    """Processes of ours that are labelling right now."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "label_unit" in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_one_worker(killed: list[int], stop: threading.Event) -> None:
    """Wait until a worker is at work, then end it the hard way."""
    while not stop.is_set():
        workers = ray_workers()
        if workers:
            killed.append(workers[0].pid)
            workers[0].kill()
            return
        time.sleep(0.02)


def test_a_killed_worker_costs_only_its_unfinished_pairs(tmp_path: Path) -> None:
    images = write_images(tmp_path / "images", scene(frames=10, width=336, height=252))
    slow = settings(
        clips={"width": 336, "frames": 10}, teacher_options={"width": 336}, pairs_per_shard=2
    )
    killed: list[int] = []
    stop = threading.Event()
    reports: list[tuple[int, float]] = []

    def watch(report: LabelReport) -> None:
        reports.append((report.labelled, report.seconds))
        if len(reports) == 1:
            threading.Thread(target=kill_one_worker, args=(killed, stop), daemon=True).start()

    report = label([images], tmp_path / "cache", slow, engine="ray", workers=2, progress=watch)
    stop.set()
    assert killed, "no worker could be killed"
    assert report.labelled == report.pairs == 2 * (9 + 8)
    assert [done for done, _ in reports][:-1] == [2 * (k + 1) for k in range(17)], (
        "progress after every shard"
    )
    assert all(cache.state(unit) == "done" for cache, unit in all_units(tmp_path / "cache"))

    local = label([images], tmp_path / "local", slow)
    assert local.refused == report.refused
    for (ours, a), (theirs, b) in zip(
        all_units(tmp_path / "cache"), all_units(tmp_path / "local"), strict=True
    ):
        assert ours.path(a).read_bytes() == theirs.path(b).read_bytes()


def test_an_address_without_ray_is_said() -> None:
    with pytest.raises(TrainingError, match=r"no Ray at 127\.0\.0\.1:1"):
        list(run_on_ray(iter([]), "{}", 1, "127.0.0.1:1"))
