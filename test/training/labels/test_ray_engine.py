"""Labelling on Ray: a killed worker, a lost node and a killed driver cost the shards under way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.labels.labelling import LabelReport, in_words, label
from flow3r_ros.training.labels.ray_engine import RayCluster
from flow3r_ros.training.labels.worker import Order
from test.training.clip_factory import scene, write_images
from test.training.labels.test_labelling import all_units, settings

pytest.importorskip("ray", reason="the fleet extra (ray) is not installed")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray") / "images"
    return write_images(folder, scene(frames=12, width=336, height=252))


SLOW = settings(
    clips={"width": 336, "frames": 3}, teacher_options={"width": 336}, pairs_per_shard=1
)
"""four clips of three frames, six shards each"""
PAIRS = 4 * 2 * (2 + 1)


def end_one(processes: list[psutil.Process], word: str) -> int:
    """End the first of the processes that is doing `word` the hard way; its pid, 0 without one."""
    for process in processes:
        try:
            if word in " ".join(process.cmdline()):
                process.kill()
                return process.pid
        except psutil.Error:
            continue
    return 0


def same_shards(one: Path, other: Path) -> bool:
    return all(
        ours.path(a).read_bytes() == theirs.path(b).read_bytes()
        for (ours, a), (theirs, b) in zip(all_units(one), all_units(other), strict=True)
    )


@pytest.fixture(scope="module")
def local(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local") / "cache"
    assert label([images], folder, SLOW).labelled == PAIRS
    return folder


def test_a_killed_worker_costs_only_its_unfinished_pairs(
    images: Path, local: Path, tmp_path: Path
) -> None:
    killed: list[int] = []
    stop = threading.Event()
    reports: list[int] = []

    def kill() -> None:
        while not stop.is_set() and not killed:
            if pid := end_one(psutil.Process().children(recursive=True), "ray::label_clip"):
                killed.append(pid)
            time.sleep(0.02)

    def watch(report: LabelReport) -> None:
        reports.append(report.labelled + report.reused)
        if len(reports) == 1:
            threading.Thread(target=kill, daemon=True).start()

    report = label([images], tmp_path / "cache", SLOW, engine="ray", workers=2, progress=watch)
    stop.set()
    assert killed, "no worker could be killed"
    assert report.labelled + report.reused == report.pairs == PAIRS
    assert report.reused <= 5, "only shards that the killed worker had finished"
    assert [*dict.fromkeys(reports)] == [6 * (k + 1) for k in range(4)], "after every clip"
    assert sum(report.nodes.values()) == report.labelled
    assert same_shards(tmp_path / "cache", local)


@pytest.fixture(scope="module")
def cluster() -> Iterator[object]:
    """Two nodes without the driver's: one core each."""
    import ray
    from ray.cluster_utils import Cluster

    nodes = Cluster(
        initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False}
    )
    ray.init(address=nodes.address, log_to_driver=False, logging_level="error")
    yield nodes
    ray.shutdown()
    nodes.shutdown()


def test_a_lost_node_costs_its_unfinished_pairs_and_workers_follow_the_cluster(
    cluster, images: Path, local: Path, tmp_path: Path
) -> None:
    node = cluster.add_node(num_cpus=1)
    cluster.wait_for_nodes()
    order = Order(str(tmp_path), SLOW.model_dump_json())
    with RayCluster(order, None, None, 0.0) as both:
        assert both.capacity() == 4
    lost: list[str] = []

    def watch(report: LabelReport) -> None:
        if len(report.nodes) == 2 and not lost:
            lost.append(in_words(report))
            cluster.remove_node(node, allow_graceful=False)

    report = label([images], tmp_path / "cache", SLOW, engine="ray", progress=watch)
    assert lost, "both nodes labelled"
    assert lost[0].count("/") == 2, "progress names both"
    assert report.labelled + report.reused == report.pairs == PAIRS
    assert same_shards(tmp_path / "cache", local)


DRIVER = """
import sys
from pathlib import Path
from flow3r_ros.training.labels.labelling import label
from test.training.labels.test_ray_engine import SLOW
images, cache, address = sys.argv[1:]
label([Path(images)], Path(cache), SLOW, engine="ray", workers=1, address=address)
"""


def test_a_killed_driver_is_gone_on_with(
    cluster, images: Path, local: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    driver = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(images), str(cache), cluster.address],
        cwd=Path(__file__).parents[3], start_new_session=True,
    )  # fmt: skip
    deadline = time.monotonic() + 300
    while len(list(cache.glob("labels/*/*.shard"))) < 3 and time.monotonic() < deadline:
        assert driver.poll() is None
        time.sleep(0.02)
    os.killpg(driver.pid, signal.SIGKILL)
    driver.wait()
    report = label([cache.parent / "none", images], cache, SLOW, engine="ray")
    assert list(report.failed) == [str(cache.parent / "none")]
    assert report.reused >= 3
    assert report.labelled + report.reused == PAIRS
    assert same_shards(cache, local)


def test_a_cluster_that_cannot_help_is_said(cluster, images: Path, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="the cluster has no GPU; leave --gpus-per-worker out"):
        label([images], tmp_path / "cache", SLOW, engine="ray", gpus=0.5)
    order = Order(str(tmp_path / "elsewhere"), SLOW.model_dump_json())
    with RayCluster(order, None, None, 0.0) as engine:
        from flow3r_ros.training.labels.worker import CutTask

        engine.submit(CutTask(str(images)))
        with pytest.raises(TrainingError, match="does not see this label cache"):
            list(engine.finished())


def test_an_address_without_ray_is_said() -> None:
    import ray

    ray.shutdown()
    with pytest.raises(TrainingError, match=r"no Ray at 127\.0\.0\.1:1"):
        RayCluster(Order("cache", "{}"), 1, "127.0.0.1:1", 0.0)
