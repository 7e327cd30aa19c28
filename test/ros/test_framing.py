"""The camera that belongs to an image, stamps, and when the odometry must start anew."""

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
        self.framing = Framing(
            NodeSettings(**settings),
            lambda: announced,
            lambda key, text: self.said.append(key),
            lambda: 77 * SECOND,
        )

    def frame(self, message: Any, now: float = 0.0) -> Any:
        return self.framing.frame(message, 5, now)


def test_a_frame_has_the_stamp_frame_name_and_camera_of_its_messages():
    session = Session()
    session.framing.take_info(info())
    arrival = session.frame(image(1_700_000_000_123_456_789))
    assert (arrival.frame.id, arrival.frame.stamp_ns, arrival.frame.source_frame) == (
        5,
        1_700_000_000_123_456_789,
        "cam",
    )
    assert (arrival.frame.camera.fx, arrival.restart) == (30.0, "")
    assert Session(camera_frame="eye").framing._settings.camera_frame == "eye"


def test_images_wait_for_an_announced_info_and_then_do_without():
    session = Session(announced=True)
    for now in (0.0, 1.0, 1.9):
        with pytest.raises(FrameError) as error:
            session.frame(image(SECOND), now)
        assert error.value.reason == "waiting_for_camera_info"
    assert session.frame(image(SECOND), 2.1).frame.camera is None
    assert session.frame(image(2 * SECOND), 2.2).frame.camera is None
    assert session.said == ["no_camera_info"]


def test_an_info_that_comes_late_starts_the_odometry_anew():
    session = Session(announced=False)
    with pytest.raises(FrameError):
        session.frame(image(SECOND), 0.0)
    assert session.frame(image(SECOND), 0.6).frame.camera is None
    session.framing.take_info(info())
    assert session.frame(image(2 * SECOND), 0.7).restart == "intrinsics changed"
    assert session.frame(image(3 * SECOND), 0.8).restart == ""


def test_an_info_of_another_size_is_not_used():
    session = Session(announced=False)
    session.framing.take_info(info(Camera(64, 48, 60.0, 60.0, 31.5, 23.5)))
    with pytest.raises(FrameError):
        session.frame(image(SECOND), 0.0)
    assert session.frame(image(SECOND), 1.0).frame.camera is None
    assert len(session.said) == 1


def test_bad_infos_are_counted_and_the_last_good_one_stays():
    session = Session()
    session.framing.take_info(info())
    broken = info()
    broken.k = np.full(9, np.inf)
    session.framing.take_info(broken)
    session.framing.take_info(broken)
    assert session.framing.ignored_infos == 2
    assert session.frame(image(SECOND)).frame.camera is not None


def test_time_that_jumps_back_and_sizes_that_change_restart():
    session = Session()
    session.framing.take_info(info())
    assert session.frame(image(100 * SECOND)).restart == ""
    assert session.frame(image(100 * SECOND - 1)).restart == ""
    assert "jumped back by 9" in session.frame(image(SECOND)).restart
    session.framing.take_info(info(Camera(64, 48, 60.0, 60.0, 31.5, 23.5)))
    assert (
        session.frame(image(2 * SECOND, 64, 48)).restart == "image size changed from 32x24 to 64x48"
    )
    session.framing.restart_before_next("the clock jumped back")
    assert session.frame(image(3 * SECOND, 64, 48)).restart == "the clock jumped back"
    session.framing.forget_time()
    assert session.frame(image(SECOND, 64, 48)).restart == ""


def test_images_without_stamps_get_the_time_of_reception():
    session = Session()
    session.framing.take_info(info())
    assert session.frame(image(0)).frame.stamp_ns == 0
    assert session.frame(image(0)).frame.stamp_ns == 77 * SECOND
    assert session.said == ["no_stamp"]
