"""Suite `replay`: what bags cost beside plain rosbags, what share of a replay is not the network, and memory of a long bag.

Pictures are those of the odometry suite. The long bag is the short one looped back and forth, so that motion stays continuous.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import StoragePlugin, Writer

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.replay import replay
from flow3r_ros.bags.types import make, ros2_types
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.config import Config, load_config
from flow3r_ros.errors import ModelError
from flow3r_ros.evaluation.bench import Timing, measure_in_turns, row
from flow3r_ros.evaluation.plane_scene import CAMERA, PlanePredictor, PlaneScene, plane_picture
from flow3r_ros.evaluation.report import load_record
from flow3r_ros.evaluation.trajectory import evaluate_trajectory
from flow3r_ros.evaluation.tum import Trajectory
from flow3r_ros.geometry.camera import scaled
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline import run
from flow3r_ros.offline.sources import BagSource
from flow3r_ros.types import Camera, Predictor, UInt8
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.images import rgb_image
from flow3r_ros.wire.transforms import header_of

_PERIOD_NS = 200_000_000
_SMALL = scaled(CAMERA, 160, 120)


def bench_replay(frames: int = 60, long_minutes: int = 20, thorough: bool = False) -> dict[str, Any]:
    """I/O per 640x480 image beside plain rosbags, shares of a nano replay's wall time, peak memory of 1 and `long_minutes` minutes."""
    pictures = [plane_picture(index) for index in range(frames)]
    with tempfile.TemporaryDirectory(prefix="flow3r_bench_") as name:
        folder = Path(name)
        raw = _write(folder / "raw", CAMERA, pictures, frames, compressed=False)
        jpeg = _write(folder / "jpeg", CAMERA, pictures, frames, compressed=True)
        rows = _io_rows(raw, jpeg, pictures, folder)
        facts: dict[str, Any] = {}
        for label, predictor in _predictors(facts):
            rows += _share_rows(label, predictor, raw, folder / f"replay_{predictor.name}")
            rows += _mode_rows(label, predictor, raw, folder)
        small = [np.asarray(cv2.resize(picture, (160, 120), interpolation=cv2.INTER_AREA), np.uint8) for picture in pictures]
        rows.append(_memory_row(folder, small, long_minutes))
    return {"rows": rows, "image": "640x480 rgb8 and jpeg, mcap", **facts}


def _predictors(facts: dict[str, Any]) -> Iterator[tuple[str, Predictor]]:
    """The bundled model where its weights are there, and the free network that leaves only our own cost."""
    from flow3r_ros.network.runner import open_predictor

    try:
        yield "nano", open_predictor(Config().model)
    except ModelError as error:
        facts["nano replay"] = f"not measured: {error}"
    yield "free network", PlanePredictor()


def _io_rows(raw: Path, jpeg: Path, pictures: list[UInt8], folder: Path) -> list[dict[str, Any]]:
    count = iter(range(1_000_000))
    timings = measure_in_turns(
        {
            "read raw": lambda: _read_ours(raw),
            "plain raw": lambda: _read_plain(raw, decode=False),
            "read jpeg": lambda: _read_ours(jpeg),
            "plain jpeg": lambda: _read_plain(jpeg, decode=True),
            "write": lambda: _write(folder / f"ours_{next(count)}", CAMERA, pictures, len(pictures), compressed=False),
            "plain write": lambda: _write_plain(folder / f"plain_{next(count)}", pictures),
        },
        repeats=5,
        warmup=1,
    )
    each = {name: Timing(t.median / len(pictures), t.p10 / len(pictures), t.p90 / len(pictures)) for name, t in timings.items()}
    return [
        row("read one raw image, decoded, with camera", each["read raw"], "rosbags, deserialized only", each["plain raw"]),
        row("read one jpeg image, decoded, with camera", each["read jpeg"], "rosbags and cv2.imdecode", each["plain jpeg"]),
        row("write one raw image and CameraInfo", each["write"], "rosbags alone, image only", each["plain write"]),
    ]


def _share_rows(label: str, predictor: Predictor, bag: Path, output: Path) -> list[dict[str, Any]]:
    """Shares of the wall time of a replay with default settings, in percent."""
    timing = run.Timing()
    with BagSource(bag) as source:
        summary = replay(source, Engine(predictor, Config()), output, quiet=True, timing=timing)
        decode_s = source.decode_s
    wall = timing.wall_s
    frames = summary["frames_estimated"]
    network = frames * (summary["stage_ms"].get("network", 0.0) + summary["stage_ms"].get("encode", 0.0)) / 1e3

    def share(name: str, seconds: float, note: str = "") -> dict[str, Any]:
        return {"name": f"{label}: {name}", "median": 100.0 * seconds / wall, "unit": "% of wall time", "note": note}

    return [
        share("reading and decoding (beside the engine, in a thread)", decode_s),
        share("waiting for frames", timing.wait_s),
        share("building, serializing and writing", timing.write_s),
        share("reading, decoding and writing", decode_s + timing.write_s, "required with nano: below 10 %" if label == "nano" else ""),
        share("network busy", network, f"{summary['fps']:.1f} frames/s"),
    ]


def _mode_rows(label: str, predictor: Predictor, bag: Path, folder: Path) -> list[dict[str, Any]]:
    """Chunked mode beside online mode: frames per second and error against the plane's true path."""
    scene, figures = PlaneScene(), {}
    for mode in ("online", "chunked"):
        config = load_config(None, {"engine.mode": mode})
        output = folder / f"{mode}_{predictor.name}"
        with BagSource(bag) as source:
            engine = Engine(predictor, config)
            engine.reset()
            fps = replay(source, engine, output, quiet=True)["fps"]
        estimate = load_record(output).trajectory()
        truth = np.stack([scene.pose(ns // _PERIOD_NS - 1) for ns in estimate.stamps_ns])
        errors = evaluate_trajectory(estimate, Trajectory(estimate.stamps_ns, truth, "plane"), align="sim3")
        figures[mode] = fps, errors["ate_rmse"]
    (online_fps, online_error), (chunked_fps, chunked_error) = figures["online"], figures["chunked"]
    beside = {"baseline": "online mode"}
    return [
        {"name": f"{label}: chunked mode, speed", "median": chunked_fps, "unit": "frames/s", **beside, "baseline_median": online_fps,
         "ratio": chunked_fps / online_fps},
        {"name": f"{label}: chunked mode, ATE", "median": chunked_error, "unit": "m", **beside, "baseline_median": online_error,
         "note": "the plane is 2 m away"},
    ]  # fmt: skip


def _memory_row(folder: Path, pictures: list[UInt8], long_minutes: int) -> dict[str, Any]:
    """Peak memory of two replays, each in a process of its own, on a 5 Hz camera of 160x120."""
    peaks = []
    for minutes in (1, long_minutes):
        bag = _write(folder / f"minutes_{minutes}", _SMALL, pictures, 300 * minutes, compressed=True)
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            peaks.append(pool.submit(_peak_mb, bag, folder / f"out_{minutes}").result())
    return {
        "name": f"peak memory, {long_minutes} minutes",
        "median": peaks[1],
        "unit": "MB",
        "baseline": "1 minute",
        "baseline_median": peaks[0],
        "ratio": peaks[0] / peaks[1],
        "note": "required: flat",
    }


def _peak_mb(bag: Path, output: Path) -> float:
    config = Config()
    config.assist.width = 112
    with BagSource(bag) as source:
        replay(source, Engine(_back_and_forth(), config), output, quiet=True)
    return run.peak_rss_mb()


def _back_and_forth() -> PlanePredictor:
    """Knows the plane for a camera that goes back and forth over the pictures."""
    scene = PlaneScene()
    return PlanePredictor(scene, lambda frame: scene.pose(_turn(frame.id, 60)))


def _turn(index: int, count: int) -> int:
    """0 1 2 ... count-1 ... 2 1 0 1 2 ..."""
    phase = index % (2 * count - 2)
    return min(phase, 2 * count - 2 - phase)


def _write(folder: Path, camera: Camera, pictures: list[UInt8], frames: int, compressed: bool) -> Path:
    topic, kind = ("/image/compressed", "CompressedImage") if compressed else ("/image", "Image")
    packed = [cv2.imencode(".jpg", np.ascontiguousarray(picture[..., ::-1]))[1].reshape(-1) for picture in pictures] if compressed else []
    with BagWriter(folder) as writer:
        writer.add("/camera_info", "sensor_msgs/msg/CameraInfo")
        writer.add(topic, f"sensor_msgs/msg/{kind}")
        for index in range(frames):
            ns, at = (index + 1) * _PERIOD_NS, _turn(index, len(pictures)) if frames > len(pictures) else index
            header = header_of(make, ns, "cam")
            writer.write("/camera_info", ns, info_from_camera(make, header, camera))
            image = rgb_image(make, header, pictures[at]) if not compressed else None
            writer.write(topic, ns, image or make(f"sensor_msgs/msg/{kind}", header=header, format="jpeg", data=packed[at]))
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
