"""Two public commands, one answer: what `flow3r node` publishes is what `flow3r run` writes for the
same frames."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.geometry.frames import odom_from_optical
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of, matrix_of_pose
from flow3r_ros.wire.tum import read_tum
from test.ros.harness import EPOCH_NS, PERIOD_NS, Client, stamp_of
from test.ros.node_process import ROOT, NodeProcess, fresh_domain
from test.ros.scene import picture, wall_camera

FRAMES = 8


def test_the_trajectory_equals_that_of_flow3r_run(tmp_path: Path) -> None:
    if not (ROOT / "models" / "flow3r_nano" / "model.safetensors").exists():
        pytest.skip("the bundled model is not there yet")
    domain = fresh_domain()
    with (
        NodeProcess(domain, program=("-m", "flow3r_ros.cli.main", "node")),
        Client(domain) as client,
    ):
        client.listen("~/odometry", "~/status")
        client.connect_camera()
        client.wait(
            lambda: client.node.count_publishers(client.name("~/odometry")), 20.0, "the odometry"
        )
        stamps = client.play(FRAMES, lockstep="~/odometry")
        received = {
            stamp_of(message): matrix_of_pose(message.pose.pose)
            for message in client.of("~/odometry", stamps)
        }
        status = client.of("~/status", stamps)[-1]
        assert (status.frames_received, status.frames_estimated) == (FRAMES, FRAMES)
    bag = _bag(tmp_path / "bag")
    command = [
        sys.executable,
        "-m",
        "flow3r_ros.cli.main",
        "run",
        str(bag),
        "--output",
        str(tmp_path / "out"),
        "--json",
    ]
    done = subprocess.run(
        command,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout)["frames_estimated"] == FRAMES
    written = read_tum(tmp_path / "out" / "trajectory.tum")
    assert len(written.poses) == FRAMES
    for stamp, pose in zip(stamps, written.poses, strict=True):
        # the file has nine decimals
        np.testing.assert_allclose(received[stamp], odom_from_optical(pose), atol=1e-8)


def _bag(folder: Path) -> Path:
    """The frames that the client plays, under the same stamps."""
    with BagWriter(folder) as writer:
        writer.add("/camera_info", "sensor_msgs/msg/CameraInfo")
        writer.add("/image", "sensor_msgs/msg/Image")
        for index in range(FRAMES):
            ns = EPOCH_NS + (index + 1) * PERIOD_NS
            header = header_of(make, ns, "cam_optical")
            writer.write("/camera_info", ns, info_from_camera(make, header, wall_camera()))
            writer.write("/image", ns, rgb_image(make, header, picture(index)))
    return folder
