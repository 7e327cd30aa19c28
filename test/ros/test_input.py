"""What cameras send, good and bad: encodings, intrinsics, and every kind of broken message."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
import pytest

from flow3r_ros.ros.messages import make
from flow3r_ros.types import Camera
from flow3r_ros.wire.encodings import ENCODINGS
from test.ros.harness import Client, stamp_of
from test.ros.node_process import NodeProcess, fresh_domain
from test.ros.scene import FOCAL, HEIGHT, WIDTH, picture, wall_camera

Encoder = Callable[[np.ndarray], tuple[np.ndarray, int]]
"""RGB picture -> (bytes, step)"""


def _rows(pixels: np.ndarray) -> tuple[np.ndarray, int]:
    return np.ascontiguousarray(pixels).reshape(-1).view(np.uint8), pixels.strides[0]


def _bayer(pattern: str) -> Encoder:
    """The mosaic behind a colour filter; `pattern` names the first two pixels of the first two
    rows."""
    channels = ["rgb".index(letter) for letter in pattern]

    def encode(rgb: np.ndarray) -> tuple[np.ndarray, int]:
        mosaic = rgb[..., 1].copy()
        for place, channel in enumerate(channels):
            mosaic[place // 2 :: 2, place % 2 :: 2] = rgb[place // 2 :: 2, place % 2 :: 2, channel]
        return _rows(mosaic)

    return encode


def _wide(encode: Encoder) -> Encoder:
    """The same in 16 bits."""

    def widened(rgb: np.ndarray) -> tuple[np.ndarray, int]:
        data, step = encode(rgb)
        return (data.astype(np.uint16) << 8).view(np.uint8), 2 * step

    return widened


def _converted(code: int) -> Encoder:
    return lambda rgb: _rows(cv2.cvtColor(rgb, code))


_gray, _uyvy, _yuyv = (
    _converted(code)
    for code in (cv2.COLOR_RGB2GRAY, cv2.COLOR_RGB2YUV_UYVY, cv2.COLOR_RGB2YUV_YUY2)
)
ENCODERS: dict[str, Encoder] = {
    "rgb8": _rows,
    "bgr8": _converted(cv2.COLOR_RGB2BGR),
    "8UC3": _converted(cv2.COLOR_RGB2BGR),
    "rgba8": _converted(cv2.COLOR_RGB2RGBA),
    "bgra8": _converted(cv2.COLOR_RGB2BGRA),
    "mono8": _gray,
    "8UC1": _gray,
    "mono16": _wide(_gray),
    "yuv422": _uyvy,
    "uyvy": _uyvy,
    "yuv422_yuy2": _yuyv,
    "yuyv": _yuyv,
}
for _pattern in ("rggb", "bggr", "gbrg", "grbg"):
    ENCODERS |= {
        f"bayer_{_pattern}8": _bayer(_pattern),
        f"bayer_{_pattern}16": _wide(_bayer(_pattern)),
    }


@pytest.fixture(scope="module")
def session() -> Iterator[tuple[Client, NodeProcess]]:
    domain = fresh_domain()
    with NodeProcess(domain) as process, Client(domain) as client:
        client.listen("~/status", "~/odometry", "~/depth/camera_info", "/diagnostics")
        client.connect_camera()
        client.warm_up("~/status", "~/odometry", "~/depth/camera_info")
        yield client, process
        assert process.process.poll() is None


def test_the_encodings_sent_are_known():
    assert set(ENCODERS) < set(ENCODINGS), "test/wire/test_encodings.py has them all"


@pytest.mark.parametrize("encoding", ENCODERS)
def test_every_encoding_is_estimated(session, encoding):
    client, _ = session
    rgb = picture(client.pictures)
    client.pictures += 1
    data, step = ENCODERS[encoding](rgb)
    _publish_until_answered(client, lambda: client.image(rgb, encoding, data, step=step))


def _publish_until_answered(client: Client, message: Callable[[], Any]) -> None:
    """Publish an image until the estimate with its stamp comes; it may overtake its CameraInfo the
    first time."""
    for _ in range(10):
        built = message()
        client.publisher("sensor_msgs/msg/Image", "image").publish(built)
        if client.within(
            2.0,
            lambda built=built: any(
                stamp_of(status) == stamp_of(built) for status in client.received["~/status"]
            ),
        ):
            return
    pytest.fail("no estimate of this image")


BROKEN: dict[str, tuple[str, dict[str, Any]]] = {
    "unknown encoding": ("unknown_encoding", {"encoding": "what_is_this"}),
    "step too small": ("bad_step", {"step": 3}),
    "no pixels": ("bad_size", {"height": 0}),
    "bytes missing": ("corrupt_image", {"data": np.zeros(1000, np.uint8)}),
}


@pytest.mark.parametrize("what", BROKEN)
def test_a_broken_image_is_counted_said_once_and_survived(session, what):
    client, process = session
    reason, changes = BROKEN[what]
    for more in range(1, 4):
        client.wait(
            lambda more=more: _count_after(client, changes, reason) >= more,
            5.0,
            "a drop with the reason",
        )
    assert process.output().count(f"({reason})") == 1
    status = client.received["~/status"][-1]
    assert status.frames_received == status.frames_estimated + sum(status.drop_counts)


def _count_after(client: Client, changes: dict[str, Any], reason: str) -> int:
    """Drops with a reason, after one more broken image and a sound one; the broken one counts as
    busy where the sound one overtakes it."""
    images = client.publisher("sensor_msgs/msg/Image", "image")
    images.publish(client.image(picture(0), **changes))
    time.sleep(0.05)
    client.play(1, lockstep="~/status")
    return client.drops().get(reason, 0)


def test_camera_info_that_is_not_finite_is_ignored_and_said_once(session):
    client, process = session
    infos = client.publisher("sensor_msgs/msg/CameraInfo", "camera_info")
    for _ in range(3):
        broken = client.info()
        broken.k = np.full(9, np.nan)
        infos.publish(broken)
    client.play(2, lockstep="~/status")
    assert process.output().count("CameraInfo ignored") == 1
    client.wait(
        lambda: _diagnostic(client, "CameraInfo ignored") == "3",
        5.0,
        "three ignored CameraInfos in the diagnostics",
    )


def test_images_that_never_come_are_said_with_the_cure(session):
    client, process = session
    for _ in range(35):
        client.play(2, period=0.01)
        client.next_stamp()
        client.next_stamp()
    client.wait(
        lambda: "of the images do not reach this node" in process.output(), 10.0, "the sentence"
    )
    assert "start it with FASTRTPS_DEFAULT_PROFILES_FILE=" in process.output()
    client.wait(
        lambda: int(_diagnostic(client, "images missing by their stamps")) >= 30, 5.0, "the count"
    )


def _diagnostic(client: Client, key: str) -> str:
    return {
        pair.key: pair.value for pair in client.received["/diagnostics"][-1].status[0].values
    }.get(key, "")


def test_new_intrinsics_start_the_odometry_anew(session):
    client, process = session
    infos = client.publisher("sensor_msgs/msg/CameraInfo", "camera_info")
    zoomed = Camera(WIDTH, HEIGHT, 400.0, 400.0, (WIDTH - 1) / 2, (HEIGHT - 1) / 2)
    for camera, focal in ((zoomed, 400.0), (None, FOCAL)):
        before = process.output().count("intrinsics changed")
        infos.publish(client.info(camera))
        client.wait(
            lambda before=before: (
                client.play(1, lockstep="~/status")
                and process.output().count("intrinsics changed") > before
            ),
            5.0,
            "a restart",
        )
        client.wait(
            lambda focal=focal: (
                client.received["~/depth/camera_info"][-1].k[0] == pytest.approx(focal)
            ),
            5.0,
            "depth with the new intrinsics",
        )


def test_region_of_interest_is_honoured(session):
    client, _ = session
    info = client.info(Camera(2 * WIDTH, HEIGHT + 40, 300.0, 300.0, WIDTH - 0.5, 139.5))
    info.roi = make(
        "sensor_msgs/msg/RegionOfInterest",
        x_offset=WIDTH // 2,
        y_offset=20,
        width=WIDTH,
        height=HEIGHT,
    )
    client.publisher("sensor_msgs/msg/CameraInfo", "camera_info").publish(info)
    expected = WIDTH - 0.5 - WIDTH // 2
    client.wait(
        lambda: (
            client.play(1, lockstep="~/status")
            and client.received["~/depth/camera_info"][-1].k[5] == pytest.approx(119.5)
        ),
        5.0,
        "intrinsics of the region",
    )
    assert client.received["~/depth/camera_info"][-1].k[2] == pytest.approx(expected)
    client.publisher("sensor_msgs/msg/CameraInfo", "camera_info").publish(client.info())
    client.play(2, lockstep="~/status")


def test_a_resolution_change_in_flight_is_survived(session):
    client, process = session
    infos = client.publisher("sensor_msgs/msg/CameraInfo", "camera_info")
    small = (WIDTH // 2, HEIGHT // 2)
    infos.publish(client.info(wall_camera(*small)))
    for _ in range(10):
        client.publisher("sensor_msgs/msg/Image", "image").publish(
            client.image(picture(client.pictures, *small))
        )
        client.pictures += 1
    _publish_until_answered(client, lambda: client.image(picture(client.pictures, *small)))
    assert "image size changed from 320x240 to 160x120" in process.output()
    assert client.received["~/depth/camera_info"][-1].width == small[0]
    infos.publish(client.info())
    _publish_until_answered(client, lambda: client.image(picture(client.pictures)))


def test_a_bag_that_starts_over_begins_a_segment_at_the_last_pose(session):
    client, process = session
    played = client.play(25, lockstep="~/odometry")
    before = client.of("~/odometry", played)[-1].pose.pose.position
    client.rewind()
    client.play(1, period=0.1)  # a stray one, for all the node knows
    answered = client.count("~/odometry")
    client.play(2, lockstep="~/odometry")
    assert "time jumped back by" in process.output()
    after = client.received["~/odometry"][answered].pose.pose.position
    assert abs(after.x - before.x) + abs(after.y - before.y) < 1e-6, "odom never jumps"


def test_without_camera_info_the_node_says_so_once_and_estimates():
    domain = fresh_domain()
    with NodeProcess(domain) as process, Client(domain) as client:
        client.listen("~/status")
        client.connect_camera(with_info=False)
        client.wait(
            lambda: client.play(1, period=0.1) and client.count("~/status") >= 3,
            20.0,
            "estimates without CameraInfo",
        )
        assert process.output().count("no CameraInfo;") == 1
