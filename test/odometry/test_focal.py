"""Unknown intrinsics: whom the first frames' focal length is believed from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.geometry.camera import scaled
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.lie import rigid, se3_exp
from flow3r_ros.odometry.focal import find_camera, misfit, with_camera
from flow3r_ros.odometry.views import View
from test.geometry.views import CAMERA
from test.odometry.oracle import EvidenceOracle, Oracle, clip_of
from test.odometry.room import view_at

TURNING = [0.03, 0.005, 0.02, 0.004, -0.012, 0.006]
CLIP = {"seed": 2, "frames": 2, "width": 168, "height": 126, "layout": "room", "movers": 0}


def walk(step: np.ndarray, frames: int = 12) -> list[View]:
    """Views of a camera that repeats one step; nobody has told its intrinsics."""
    poses = [np.linalg.matrix_power(step, index) for index in range(frames)]
    return [
        replace(view, frame=replace(view.frame, camera=None))
        for view in (view_at(pose, index) for index, pose in enumerate(poses))
    ]


def test_a_network_with_rays_of_its_own_is_asked_first() -> None:
    clip = clip_of(**CLIP)
    views = walk(np.eye(4), 1)
    found = find_camera(views, Oracle(clip), None)
    expected = clip.camera.fx / clip.camera.width * CAMERA.width
    assert found.estimated
    assert found.fx == pytest.approx(expected, rel=0.01)


def test_flow_of_a_turning_camera_shows_the_focal_length() -> None:
    views = walk(se3_exp(TURNING))
    found = find_camera(views, EvidenceOracle(clip_of(**CLIP)), Matcher(CAMERA.width))
    assert (found.width, found.height, found.estimated) == (CAMERA.width, CAMERA.height, True)
    assert found.fx == pytest.approx(CAMERA.fx, rel=0.1)


@pytest.mark.parametrize("step", [np.eye(4), rigid(np.eye(3), [0.02, 0.0, 0.0])])
def test_where_nothing_shows_it_the_assumption_is_said(
    step: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    found = find_camera(walk(step), EvidenceOracle(clip_of(**CLIP)), Matcher(CAMERA.width))
    assert found.fx == pytest.approx(0.9 * CAMERA.width)
    assert "0.9 of the longer side is assumed" in caplog.text


def test_the_focal_length_of_a_failing_network_is_not_needed(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = find_camera(walk(np.eye(4), 1), Oracle(clip_of(**CLIP), fails={0}), None)
    assert found.fx == pytest.approx(0.9 * CAMERA.width)
    assert "no focal length from the network" in caplog.text


def test_a_view_gets_the_camera_of_its_own_grid() -> None:
    view = view_at(np.eye(4), 0)
    large = scaled(CAMERA, 2 * CAMERA.width, 2 * CAMERA.height)
    seen = with_camera(view, large, CAMERA.width)
    assert seen.frame.camera == large
    assert (seen.camera.width, seen.camera.height) == (CAMERA.width, CAMERA.height)
    assert seen.camera.fx == pytest.approx(CAMERA.fx)


def test_given_intrinsics_are_called_wrong_only_when_they_surely_are() -> None:
    assert misfit(1.0, 0.0) == misfit(0.975, 0.001) == misfit(1.1, 0.05) == ""
    assert "10% shorter" in misfit(0.9, 0.003)
    assert "12% longer" in misfit(1.12, 0.003)
