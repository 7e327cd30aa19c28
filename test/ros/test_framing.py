"""Images wait for the CameraInfo that is on its way, and no longer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.config import NodeSettings
from flow3r_ros.errors import FrameError
from flow3r_ros.ros.framing import Framing
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

CAMERA = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)
SECOND = 1_000_000_000


def image(ns: int, width: int = 32, height: int = 24) -> Any:
    return rgb_image(make, header_of(make, ns, "cam"), np.zeros((height, width, 3), np.uint8))


def info(camera: Camera = CAMERA) -> Any:
    return info_from_camera(make, header_of(make, 0, "cam"), camera)


class Session:
    def __init__(self, announced: bool = True, **settings: Any) -> None:
        self.said: list[str] = []
        self.informed: list[str] = []
        self.framing = Framing(
            NodeSettings(**settings),
            "/cam/image",
            lambda: announced,
            lambda key, text: self.said.append(text),
            lambda key, text: self.informed.append(text),
        )

    def frame(self, message: Any, now: float = 0.0) -> Any:
        return self.framing.frame(message, 5, now, 77 * SECOND)


def test_a_frame_has_the_camera_of_its_info_and_that_is_told():
    session = Session(camera_frame="eye")
    session.framing.take_info(info())
    frame = session.frame(image(1_700_000_000_123_456_789))
    assert (frame.id, frame.stamp_ns) == (5, 1_700_000_000_123_456_789)
    assert (frame.source_frame, frame.camera.fx) == ("eye", 30.0)
    assert session.informed == [session.framing.camera.in_words()]
    assert not session.said


def test_images_wait_for_an_announced_info_and_then_do_without():
    session = Session(announced=True)
    for now in (0.0, 1.0, 1.9):
        with pytest.raises(FrameError) as error:
            session.frame(image(SECOND), now)
        assert error.value.reason == "waiting_for_camera_info"
    assert session.frame(image(SECOND), 2.1).camera is None
    assert session.frame(image(2 * SECOND), 2.2).camera is None
    assert "no CameraInfo" in session.said[0]


def test_an_info_that_comes_late_is_used():
    session = Session(announced=False)
    with pytest.raises(FrameError):
        session.frame(image(SECOND), 0.0)
    assert session.frame(image(SECOND), 0.6).camera is None
    session.framing.take_info(info())
    assert session.frame(image(2 * SECOND), 0.7).camera == CAMERA


def test_an_info_of_another_size_is_not_used():
    session = Session(announced=False)
    session.framing.take_info(info(Camera(64, 48, 60.0, 60.0, 31.5, 23.5)))
    with pytest.raises(FrameError):
        session.frame(image(SECOND), 0.0)
    assert session.frame(image(SECOND), 1.0).camera is None
    assert any("it is for 64x48" in text for text in session.said)


def test_images_without_stamps_get_the_nodes_time():
    session = Session()
    session.framing.take_info(info())
    assert session.frame(image(0)).stamp_ns == 77 * SECOND
    assert len(session.said) == 1
