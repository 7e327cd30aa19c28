"""A camera that goes blind after eight good frames, through `flow3r run`, `replay` and the engine:
said at once, lost after five frames, and no transform while lost."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from rosbags.rosbag2 import Reader

from flow3r_ros.bags.types import ros2_types
from flow3r_ros.datasets.sources import BagSource, open_source
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.replay import replay
from flow3r_ros.offline.run import run
from flow3r_ros.report.page import load_record
from flow3r_ros.report.row import STATES
from flow3r_ros.types import TrackingState, UInt8
from test.conftest import shared_path
from test.odometry.plane import Network, frame_of, picture, settings, stepped

GOOD, BLIND = 8, 14
BRIDGED = 3
"""frames that motion bridges at 10 Hz, before it says nothing any more"""
KINDS = ("lens_cap", "all_black", "overexposed", "plain_wall")


@pytest.fixture(scope="module")
def bags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    maker = shared_path("cases/make_blind.py")
    folder = tmp_path_factory.mktemp("blind")
    subprocess.run([sys.executable, str(maker), str(folder)], cwd=maker.parent, check=True)
    return folder


def right(states: list[str], bridged: int = BRIDGED) -> None:
    """What every kind must say."""
    assert len(states) == GOOD + BLIND
    assert "lost" not in states[:GOOD]
    assert set(states[1:GOOD]) == {"tracking"}, states
    assert "tracking" not in states[GOOD:], states
    assert states[GOOD] == "degraded"
    assert set(states[GOOD + bridged :]) == {"lost"}, states


def network() -> Network:
    """It only has to answer: geometry finds the pose."""
    return Network([0] * (GOOD + BLIND))


@pytest.mark.parametrize("kind", KINDS)
def test_run_says_it(bags: Path, kind: str, tmp_path: Path) -> None:
    with open_source(bags / kind) as source, Engine(network(), settings()) as engine:
        summary = run(source, engine, tmp_path / "out", quiet=True)
    record = load_record(tmp_path / "out")
    right([STATES[int(state)].value for state in record.column("state")])
    assert summary["lost_spans"]
    assert summary["tracking_states"]["lost"] == BLIND - BRIDGED


@pytest.mark.parametrize("kind", KINDS)
def test_replay_publishes_no_transform_while_lost(bags: Path, kind: str, tmp_path: Path) -> None:
    with BagSource(bags / kind) as source, Engine(network(), settings()) as engine:
        replay(source, engine, tmp_path / "out", quiet=True)
    messages: dict[str, list[Any]] = {}
    with Reader(tmp_path / "out") as reader:
        for connection, _, data in reader.messages():
            if connection.topic in ("/tf", "/flow3r/odometry"):
                message = ros2_types().deserialize_cdr(data, connection.msgtype)
                messages.setdefault(connection.topic, []).append(message)
    assert len(messages["/tf"]) == GOOD + BRIDGED
    assert messages["/flow3r/odometry"][-1].pose.covariance.min() >= 0
    assert messages["/flow3r/odometry"][-1].pose.covariance[0] >= 1e6


def blind(kind: str, index: int) -> UInt8:
    random = np.random.default_rng(index)
    last = picture(GOOD)
    shown = {
        "defocus": cv2.GaussianBlur(last, (0, 0), 25 + index),
        "noise": random.integers(0, 256, last.shape),
        "noise in the dark": np.abs(random.normal(0, 4, last.shape)),
        "a hand": np.clip(random.normal(1, 0.01, last.shape) * (150, 110, 90) + index, 0, 255),
        "flicker": np.full(last.shape, 255 * (index % 2)),
    }
    return np.asarray(shown[kind], np.uint8)


@pytest.mark.parametrize("kind", ["defocus", "noise", "noise in the dark", "a hand", "flicker"])
def test_the_engine_says_it_of_other_kinds(kind: str) -> None:
    frames = [frame_of(i, picture(i)) for i in range(GOOD)]
    frames += [frame_of(GOOD + i, blind(kind, i)) for i in range(BLIND)]
    estimates, engine = stepped(Network(list(range(GOOD + BLIND))), frames)
    states = [estimate.tracking_state.value for estimate in estimates]
    right(states, bridged=4)  # at 30 Hz `engine.lost_after` comes first
    for estimate in estimates[GOOD:]:
        assert estimate.reason
        if estimate.tracking_state is TrackingState.LOST:
            assert np.diag(estimate.covariance).min() >= 1e6
    assert engine.relocalisations == 0
