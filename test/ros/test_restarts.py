"""One restart policy: a changed size, changed intrinsics and a jump back in time, in one recording,
fed through the node's door and through the bag's, give the same estimates to the byte."""

from __future__ import annotations

import pickle
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.storage import Storage
from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.config import Config, NodeSettings
from flow3r_ros.errors import FrameError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.ros.framing import Framing
from flow3r_ros.types import Camera, Estimate
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of
from test.odometry.oracle import Oracle, clip_of, frames_of

WALK = {
    "seed": 3,
    "frames": 24,
    "width": 168,
    "height": 126,
    "layout": "room",
    "motion": "handheld",
    "movers": 0,
    "noise": 0.0,
}
START, STEP = 1_700_000_000_000_000_000, 100_000_000


def recording(folder: Path) -> Path:
    """24 frames: at 6 the intrinsics change, at 12 the size, at 18 the time goes back by 1.9 s."""
    clip = clip_of(**WALK)
    with BagWriter(folder) as writer:
        writer.add("/cam/camera_info", "sensor_msgs/msg/CameraInfo")
        writer.add("/cam/image", "sensor_msgs/msg/Image")
        for index, frame in enumerate(frames_of(clip)[:24]):
            rgb, camera = frame.rgb, frame.camera
            assert camera is not None
            if index >= 6:
                camera = replace(camera, fx=1.2 * camera.fx, fy=1.2 * camera.fy)
            if index >= 12:
                rgb = cv2.resize(rgb, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
                camera = Camera(rgb.shape[1], rgb.shape[0], camera.fx / 2, camera.fy / 2, 0.0, 0.0)
                camera = replace(camera, cx=(camera.width - 1) / 2, cy=(camera.height - 1) / 2)
            ns = START + index * STEP - (1_900_000_000 if index >= 18 else 0)
            header = header_of(make, ns, "cam")
            received = START + index * STEP
            writer.write("/cam/camera_info", received, info_from_camera(make, header, camera))
            writer.write("/cam/image", received + 1, rgb_image(make, header, rgb))
    return folder


def live(bag: Path, engine: Engine) -> list[Estimate]:
    """The node's way: callbacks, framing, one step a frame."""
    framing = Framing(NodeSettings(), "/cam/image", lambda: True, lambda *_: None, lambda *_: None)
    out: list[Estimate] = []
    with Storage(bag) as storage:
        count = 0
        for topic, _, data in storage.messages({"/cam/image", "/cam/camera_info"}):
            message: Any = storage.deserialize(topic, data)
            if topic == "/cam/camera_info":
                framing.take_info(message)
                continue
            out += engine.step(framing.frame(message, count, count / 10, START))
            count += 1
    return [*out, *engine.finish()]


def offline(bag: Path, engine: Engine) -> list[Estimate]:
    """The way of `run` and `replay`."""
    out: list[Estimate] = []
    with BagReader(bag) as reader:
        for event in reader.events():
            assert not isinstance(event, FrameError)
            out += engine.feed(event)
    return [*out, *engine.finish()]


def content(estimates: list[Estimate]) -> list[bytes]:
    """Everything but how long it took."""
    return [pickle.dumps(replace(estimate, stage_ms={})) for estimate in estimates]


def test_live_is_offline_through_all_restarts(tmp_path: Path) -> None:
    bag = recording(tmp_path / "bag")
    engines = [Engine(Oracle(clip_of(**WALK)), Config()) for _ in range(2)]
    one, other = live(bag, engines[0]), offline(bag, engines[1])
    assert content(one) == content(other)
    assert engines[0].segments == engines[1].segments
    assert engines[0].drops == engines[1].drops == {"resolution_change": 1, "time_jumped_back": 1}
    segments = engines[0].segments
    assert [segment.first_frame for segment in segments] == [0, 6, 13, 19]
    reasons = ["start", "intrinsics changed", "image size changed", "time jumped back by 1."]
    for segment, reason in zip(segments, reasons, strict=True):
        assert segment.reason.startswith(reason)
    for number in range(4):
        stamps = [estimate.stamp_ns for estimate in one if estimate.segment == number]
        assert stamps == sorted(stamps)
        assert len(stamps) >= 5
    steps = [
        np.linalg.norm(b.T_odom_cam[:3, 3] - a.T_odom_cam[:3, 3])
        for a, b in pairwise(one)
        if a.segment != b.segment
    ]
    assert max(steps) < 0.5, "a segment goes on from the last pose"
