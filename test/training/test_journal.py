"""What a run leaves to be watched: rows, held-out metrics, pictures that show something;
TensorBoard only where it is installed."""

from __future__ import annotations

import builtins
import csv
import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import OutputError
from flow3r_ros.training.journal import Journal
from flow3r_ros.training.loop import run
from test.training.test_loop import Repeated


class HeldOut:
    """The same clips as for training, one by one."""

    def __init__(self, clips: list) -> None:
        self._clips = clips

    def all(self, limit: int):
        return ([clip] for clip in self._clips[:limit])


@pytest.fixture(scope="module")
def watched(tmp_path_factory, samples, tiny_settings) -> Path:
    output = tmp_path_factory.mktemp("watched")
    run(
        tiny_settings(steps=4, validate_every=2, validation_clips=2),
        Repeated(samples),
        output,
        validation=HeldOut(samples),
    )
    return output


def test_each_validation_has_metrics_and_pictures(watched):
    steps = [
        json.loads(line)["step"]
        for line in (watched / "validation.jsonl").read_text(encoding="utf-8").splitlines()
    ]
    assert steps == [0, 2, 4]
    for step in steps:
        for name in ("flow", "depth", "trajectory"):
            picture = cv2.imread(str(watched / "pictures" / f"step_{step:06d}_{name}.png"))
            assert picture is not None, (step, name)
            assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 10, (
                f"{name} of step {step} is blank"
            )


def test_the_flow_picture_changes_as_the_network_learns(watched):
    before, after = (
        cv2.imread(str(watched / "pictures" / f"step_{step:06d}_flow.png")) for step in (0, 4)
    )
    assert before.shape == after.shape
    assert (before != after).any()


def test_events_hold_the_losses(watched):
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed",
    )
    events = accumulator.EventAccumulator(str(watched / "tensorboard"))
    events.Reload()
    with (watched / "metrics.csv").open(encoding="utf-8") as file:
        losses = [float(row["loss"]) for row in csv.DictReader(file)]
    assert [event.value for event in events.Scalars("train/loss")] == pytest.approx(
        losses, rel=1e-5
    )


def test_without_tensorboard_the_rest_is_written_and_it_is_said(tmp_path, monkeypatch, caplog):
    load = builtins.__import__

    def missing(name, *arguments, **options):
        if "tensorboard" in name:
            raise ImportError(name)
        return load(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", missing)
    with Journal(tmp_path, 0) as journal:
        journal.write({"step": 1, "loss": 0.5})
    assert "tensorboard is not installed" in caplog.text
    assert not (tmp_path / "tensorboard").exists()
    assert (
        (tmp_path / "metrics.csv").read_text(encoding="utf-8").splitlines()[1].startswith("1,0.5")
    )


def test_a_picture_that_cannot_be_written_is_a_typed_error(tmp_path):
    (tmp_path / "pictures").write_text("in the way", encoding="utf-8")
    with Journal(tmp_path, 0) as journal, pytest.raises(OutputError, match="pictures"):
        journal.picture(1, "flow", np.zeros((4, 4, 3), np.uint8))


@pytest.mark.parametrize("name", ["metrics.csv", "validation.jsonl"])
def test_a_full_disk_is_a_typed_error_that_names_the_file(tmp_path, name):
    (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(OutputError, match="cannot be written"), Journal(tmp_path, 0) as journal:
        journal.scores(0, {"epe_head": 1.0})
