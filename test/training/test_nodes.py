"""`torchrun` over two nodes of two processes each, as docs/fleet.md says it, streaming from object
storage; a node that dies; the run goes on sample-exactly."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import yaml
from safetensors.torch import load

from flow3r_ros.storage import RemotePath
from flow3r_ros.training.labels.labelling import label
from flow3r_ros.training.loop import train
from flow3r_ros.training.train_config import TrainSettings
from test.object_store import ObjectStore, object_store
from test.training.clip_factory import scene, write_images
from test.training.test_object_storage import LABELS

pytest.importorskip("s3fs", reason="the fleet extra (s3fs) is not installed")
pytestmark = pytest.mark.thorough


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        running.make_bucket("fleet")
        yield running


def torchrun(config: Path, output: str, steps: int, resume: bool) -> list[subprocess.Popen[bytes]]:
    """Two nodes of two processes: the command of docs/fleet.md, once on each."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    nodes = []
    for rank in (0, 1):
        command = [
            sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=2",
            f"--node-rank={rank}", "--master-addr=127.0.0.1", f"--master-port={port}",
            "-m", "flow3r_ros.cli", "train", "--config", str(config),
            "--data", "s3://fleet/labels", "--output", output, "--max-steps", str(steps),
            *(["--resume"] if resume else []),
        ]  # fmt: skip
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(config.parent)}
        nodes.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE))
    return nodes


def switch_off(node: subprocess.Popen[bytes]) -> None:
    """End torchrun and its workers, which have sessions of their own."""
    for process in [*psutil.Process(node.pid).children(recursive=True), node]:
        process.kill()
    node.communicate()


def test_a_dead_node_costs_the_steps_since_the_checkpoint(
    server: ObjectStore, tmp_path: Path, tiny_settings: Callable[..., TrainSettings]
) -> None:
    images = write_images(tmp_path / "walk", scene(frames=12))
    labels, output = RemotePath("s3://fleet/labels"), RemotePath("s3://fleet/run")
    label([images], labels, LABELS)
    settings = tiny_settings(
        steps=40, checkpoint_every=2, validation_clips=1, clips_per_step=4, threads=1,
        optimisation={"learning_rate": 1e-4, "warmup_steps": 1}, strategy="fsdp",
        data={"frames": [2, 2], "grids": [[56, 42]], "labels": LABELS.model_dump()},
    )  # fmt: skip
    config = tmp_path / "train.yaml"
    config.write_text(yaml.safe_dump(settings.model_dump(mode="json")))
    nodes = torchrun(config, str(output), 40, resume=False)
    deadline = time.monotonic() + 600
    while not list((output / "checkpoints").glob("step_*")) and time.monotonic() < deadline:
        assert all(node.poll() is None for node in nodes), nodes[0].communicate()[1][-2000:]
        time.sleep(0.1)
    for node in reversed(nodes):  # one loses its power, then the scheduler ends the other
        switch_off(node)
    done = max(
        int(path.stem.rpartition("_")[2]) for path in (output / "checkpoints").glob("step_*")
    )
    last = done + 3
    train(config, [labels], tmp_path / "alone", max_steps=last)

    nodes = torchrun(config, str(output), last, resume=True)
    errors = [node.communicate(timeout=600)[1].decode() for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], errors[0][-2000:]
    straight = (tmp_path / "alone" / "metrics.csv").read_text().splitlines()
    resumed = (output / "metrics.csv").read_text().splitlines()
    assert len(straight) == len(resumed) == last + 1
    for ours, theirs in zip(straight[1:], resumed[1:], strict=True):
        (step, loss), (step_two, loss_two) = ours.split(",")[:2], theirs.split(",")[:2]
        assert step == step_two
        assert float(loss_two) == pytest.approx(float(loss), rel=2e-3)
    weights = load((output / "model" / "model.safetensors").read_bytes())
    expected = load((tmp_path / "alone" / "model" / "model.safetensors").read_bytes())
    for name, value in expected.items():
        assert float((weights[name].float() - value.float()).abs().max()) < 2e-3, name
