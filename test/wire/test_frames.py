"""Stamps, frame names and cameras of messages, in the order they are received."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from flow3r_ros.bags.types import make
from flow3r_ros.errors import FrameError
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.frames import FrameMaker
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

CAMERA = Camera(32, 24, 30.0, 30.0, 15.5, 11.5)
SECOND = 1_000_000_000
START = 1_700_000_000 * SECOND


class Session:
    def __init__(self, **options: Any) -> None:
        self.said: dict[str, str] = {}
        self.maker = FrameMaker(self.said.setdefault, "/cam/image_raw", **options)
        self.count = 0

    def frame(self, ns: int, received: int, frame_id: str = "cam", shade: int | None = None) -> Any:
        self.count += 1
        pixels = np.full((24, 32, 3), self.count if shade is None else shade, np.uint8)
        message = rgb_image(make, header_of(make, ns, frame_id), pixels)
        return self.maker.frame(message, self.count, received)


def info(camera: Camera = CAMERA, frame: str = "cam") -> Any:
    return info_from_camera(make, header_of(make, 0, frame), camera)


def test_a_frame_has_stamp_name_and_camera_of_its_messages() -> None:
    session = Session()
    session.maker.take_info(info(), "/cam/camera_info")
    frame = session.frame(START + 7, START + 9, "/uav/cam")
    assert frame.camera is None, "the CameraInfo is of frame cam"
    frame = session.frame(START + 8, START + 9, "/cam")
    assert (frame.stamp_ns, frame.source_frame, frame.camera) == (START + 8, "cam", CAMERA)
    assert session.frame(START + 9, START + 9, "").source_frame == "camera_optical_frame"
    assert Session(source_frame="eye").frame(START, START).source_frame == "eye"


def test_images_without_stamps_get_the_time_of_reception() -> None:
    session = Session()
    stamps = [session.frame(0, START + k * SECOND).stamp_ns for k in range(3)]
    assert stamps == [START + k * SECOND for k in range(3)]
    assert list(session.said) == ["zero stamp"]
    assert session.frame(START + 9 * SECOND, START + 8 * SECOND).stamp_ns == START + 9 * SECOND


def test_images_before_the_clock_are_left_out_never_at_1970() -> None:
    session = Session()
    with pytest.raises(FrameError) as caught:
        session.frame(0, 0)
    assert caught.value.reason == "no_stamp"
    assert session.frame(START, 0).stamp_ns == START


def test_one_stamp_on_every_image_is_replaced_by_receive_times() -> None:
    session = Session()
    stamps = [session.frame(START, START + k * SECOND).stamp_ns for k in range(4)]
    assert stamps == [START + k * SECOND for k in range(4)]
    assert list(session.said) == ["standing stamp"]
    assert session.frame(START + 60 * SECOND, START + 5 * SECOND).stamp_ns == START + 60 * SECOND


def test_a_message_that_comes_twice_keeps_its_stamp() -> None:
    session = Session()
    first = session.frame(START, START, shade=1)
    again = session.frame(START, START + SECOND, shade=1)
    assert again.stamp_ns == first.stamp_ns
    assert not session.said


def test_a_bad_info_is_counted_and_the_last_good_one_stays() -> None:
    session = Session()
    session.maker.take_info(info())
    broken = info()
    broken.k = np.full(9, np.inf)
    session.maker.take_info(broken)
    uncalibrated = info()
    uncalibrated.k, uncalibrated.p = np.zeros(9), np.zeros(12)
    session.maker.take_info(uncalibrated)
    assert session.maker.ignored_infos == 1
    assert list(session.said) == ["bad_camera_info", "uncalibrated"]
    assert session.frame(START, START).camera == CAMERA


def test_an_info_of_another_size_is_not_used_and_said() -> None:
    session = Session()
    session.maker.take_info(info(Camera(64, 48, 60.0, 60.0, 31.5, 23.5)))
    assert session.frame(START, START).camera is None
    assert any("it is for 64x48, images are 32x24" in text for text in session.said.values())
