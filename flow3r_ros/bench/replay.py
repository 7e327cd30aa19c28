"""Suite `replay`: what bags cost beside plain rosbags, what share of a replay is not the network,
and memory of a long bag.

Shares, speed and accuracy are those of the bundled clip as a bag of jpegs; memory is that of a
looped one (`evaluation.memory`).
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.types import make, ros2_types
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.bench.memory import (
    SMALL,
    knowing_predictor,
    memory_row,
    peak_mb,
    small_config,
    small_pictures,
    there_and_back,
)
from flow3r_ros.bench.plane_scene import CAMERA, plane_picture
from flow3r_ros.bench.run import CLIP
from flow3r_ros.bench.suites import Timing, measure_in_turns, row
from flow3r_ros.config import Config, load_config
from flow3r_ros.datasets.sources import BagSource
from flow3r_ros.errors import Flow3rError
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline import drive
from flow3r_ros.offline.from_video import bag_from_video
from flow3r_ros.offline.replay import replay
from flow3r_ros.report.page import load_record
from flow3r_ros.types import Camera, Predictor, UInt8
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

_PERIOD_NS = 200_000_000
_A_MINUTE = 300
"""frames of a 5 Hz camera"""


def bench_replay(thorough: bool = False) -> dict[str, Any]:
    """I/O per 640x480 image beside plain rosbags, shares of a nano replay's wall time, the
    network at every frame beside keyframes only, peak memory of one minute of bag beside 3 (20 when
    `thorough`)."""
    pictures = [plane_picture(index) for index in range(60)]
    facts: dict[str, Any] = {"image": "640x480 rgb8 and jpeg, mcap"}
    with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as name:
        folder = Path(name)
        raw = _write(folder / "raw", CAMERA, pictures, 60, compressed=False)
        jpeg = _write(folder / "jpeg", CAMERA, pictures, 60, compressed=True)
        rows = _io_rows(raw, jpeg, pictures, folder)
        try:
            rows += _replay_rows(_bundled_predictor(), CLIP, folder)
        except Flow3rError as error:
            facts["nano replay"] = f"not measured: {error}"
        rows.append(_memory_row(folder, 20 if thorough else 3))
    return {"rows": rows, **facts}


def _bundled_predictor() -> Predictor:
    from flow3r_ros.network.runner import open_predictor

    return open_predictor(Config().model)


def _io_rows(raw: Path, jpeg: Path, pictures: list[UInt8], folder: Path) -> list[dict[str, Any]]:
    count = iter(range(1_000_000))
    timings = measure_in_turns(
        {
            "read raw": lambda: _read_ours(raw),
            "plain raw": lambda: _read_plain(raw, decode=False),
            "read jpeg": lambda: _read_ours(jpeg),
            "plain jpeg": lambda: _read_plain(jpeg, decode=True),
            "write": lambda: _write(
                folder / f"ours_{next(count)}", CAMERA, pictures, len(pictures), compressed=False
            ),
            "plain write": lambda: _write_plain(folder / f"plain_{next(count)}", pictures),
        },
        repeats=5,
        warmup=1,
    )
    each = {
        name: Timing(t.median / len(pictures), t.p10 / len(pictures), t.p90 / len(pictures))
        for name, t in timings.items()
    }
    return [
        row(
            "read one raw image, decoded, with camera",
            each["read raw"],
            "rosbags, deserialized only",
            each["plain raw"],
        ),
        row(
            "read one jpeg image, decoded, with camera",
            each["read jpeg"],
            "rosbags and cv2.imdecode",
            each["plain jpeg"],
        ),
        row(
            "write one raw image and CameraInfo",
            each["write"],
            "rosbags alone, image only",
            each["plain write"],
        ),
    ]


def _replay_rows(predictor: Predictor, clip: Path, folder: Path) -> list[dict[str, Any]]:
    """Shares of the wall time of a replay with default settings, and the network asked at
    every frame beside keyframes only: speed and error.

    Raises InputError when the clip is not there.
    """
    bag = folder / "clip"
    bag_from_video(clip, bag, compressed=True, quiet=True)
    rows, figures = [], {}
    for mode in ("keyframes", "every_frame"):
        output, timing = folder / f"replay_{mode}", drive.Timing()
        config = load_config(None, {"engine.network": mode})
        with BagSource(bag) as source, Engine(predictor, config) as engine:
            engine.reset()
            fps = replay(source, engine, output, quiet=True, timing=timing)["fps"]
            decode_s = source.decode_s
        record = load_record(output)
        if mode == "keyframes":
            network = sum(record.stage_ms.get("network", ())) / 1e3
            rows = _share_rows(timing, decode_s, network)
        figures[mode] = (
            fps,
            evaluate_trajectory(record.trajectory(), clip / "groundtruth.tum", "sim3")["ate_rmse"],
        )
    (fps, error_m), (dense_fps, dense_error) = figures["keyframes"], figures["every_frame"]
    beside = {"baseline": "at keyframes", "note": f"bundled clip, {len(record)} frames"}
    speed = {
        "median": dense_fps,
        "unit": "frames/s",
        "baseline_median": fps,
        "ratio": dense_fps / fps,
    }
    error = {
        "median": dense_error,
        "unit": "m",
        "baseline_median": error_m,
        "ratio": error_m / dense_error,
    }
    return [
        *rows,
        {"name": "network at every frame, speed", **speed, **beside},
        {"name": "network at every frame, ATE", **error, **beside},
    ]


def _share_rows(timing: drive.Timing, decode_s: float, network_s: float) -> list[dict[str, Any]]:
    def share(name: str, seconds: float, note: str = "") -> dict[str, Any]:
        return {
            "name": f"share of the wall time: {name}",
            "median": 100.0 * seconds / timing.wall_s,
            "unit": "%",
            "note": note,
        }

    waiting = share("waiting for frames, read ahead in a thread", timing.wait_s)
    waiting |= {
        "baseline": "what the thread takes to read and decode them",
        "baseline_median": 100.0 * decode_s / timing.wall_s,
    }
    building = share("building messages, written behind in a thread", timing.write_s)
    building |= {
        "baseline": "what the thread takes to write them",
        "baseline_median": 100.0 * timing.behind_s / timing.wall_s,
    }
    whole = share(
        "reading, decoding and writing", timing.wait_s + timing.write_s, "required: below 10 %"
    )
    whole |= {
        "baseline": "the same with all that the threads do beside the engine",
        "baseline_median": 100.0 * (decode_s + timing.write_s + timing.behind_s) / timing.wall_s,
    }
    busy = share("network busy", network_s, "in its own thread, beside geometry")
    return [whole, waiting, building, share("engine busy", timing.engine_s), busy]


def _memory_row(folder: Path, long_minutes: int) -> dict[str, Any]:
    """Peak memory of two replays of a looped bag of 320x240 jpegs."""
    pictures, peaks = small_pictures(), []
    for minutes in (1, long_minutes):
        bag = _write(
            folder / f"minutes_{minutes}", SMALL, pictures, _A_MINUTE * minutes, compressed=True
        )
        peaks.append(peak_mb(_replay_looped, bag, folder / f"out_{minutes}"))
    note = "required: flat; 5 Hz, 320x240, an exact network that costs nothing, depth at width 112"
    return memory_row(
        f"peak memory, {long_minutes} minutes of bag", peaks[1], "1 minute", peaks[0], note
    )


def _replay_looped(bag: Path, output: Path) -> None:
    with BagSource(bag) as source, Engine(knowing_predictor(), small_config()) as engine:
        replay(source, engine, output, quiet=True)


def _write(
    folder: Path, camera: Camera, pictures: list[UInt8], frames: int, compressed: bool
) -> Path:
    topic, kind = ("/image/compressed", "CompressedImage") if compressed else ("/image", "Image")
    packed = (
        [
            cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]))[1].reshape(-1)
            for picture in pictures
        ]
        if compressed
        else []
    )
    with BagWriter(folder) as writer:
        writer.add("/camera_info", "sensor_msgs/msg/CameraInfo")
        writer.add(topic, f"sensor_msgs/msg/{kind}")
        for index in range(frames):
            ns, at = (index + 1) * _PERIOD_NS, there_and_back(index, len(pictures))
            header = header_of(make, ns, "cam")
            writer.write("/camera_info", ns, info_from_camera(make, header, camera))
            image = rgb_image(make, header, pictures[at]) if not compressed else None
            writer.write(
                topic,
                ns,
                image
                or make(f"sensor_msgs/msg/{kind}", header=header, format="jpeg", data=packed[at]),
            )
    return folder


def _write_plain(folder: Path, pictures: list[UInt8]) -> None:
    store = ros2_types()
    with Writer(folder, version=9, storage_plugin=StoragePlugin.MCAP) as writer:
        connection = writer.add_connection("/image", "sensor_msgs/msg/Image", typestore=store)
        for index, picture in enumerate(pictures):
            message = rgb_image(make, header_of(make, index, "cam"), picture)
            writer.write(connection, index, store.serialize_cdr(message, "sensor_msgs/msg/Image"))


def _read_ours(bag: Path) -> int:
    with BagReader(bag) as reader:
        return sum(frame.rgb.shape[0] for frame in reader.frames())


def _read_plain(bag: Path, decode: bool) -> int:
    total = 0
    with AnyReader([bag]) as reader:
        for connection, _, data in reader.messages():
            message: Any = reader.deserialize(data, connection.msgtype)
            if decode and connection.topic != "/camera_info":
                total += np.asarray(cv2.imdecode(message.data, cv2.IMREAD_COLOR)).shape[0]
    return total
