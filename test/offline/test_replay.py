"""A replay is a bag other tools read, the same bytes every time, and nothing half-written whatever
happens."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mcap.reader import make_reader
from mcap_ros2.decoder import DecoderFactory
from rosbags.rosbag2 import Reader

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter, WriteBehind
from flow3r_ros.config import Config
from flow3r_ros.datasets.sources import BagSource, open_source
from flow3r_ros.errors import BagError, OutputError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.bag_recorder import bag_topic
from flow3r_ros.offline.from_video import bag_from_video
from flow3r_ros.offline.replay import replay
from flow3r_ros.offline.run import run
from flow3r_ros.wire.camera_info import info_from_camera
from flow3r_ros.wire.outputs import TOPICS
from flow3r_ros.wire.transforms import tf_message
from test.bags.factory import standard_topics, write_bag
from test.odometry.oracle import Oracle
from test.offline.factory import clip_folder, small_clip, small_config, write_video


def input_bag(tmp_path: Path, **options: Any) -> Path:
    clip = tmp_path / "clip"
    if not clip.exists():
        clip_folder(clip, small_clip())
    bag_from_video(clip, tmp_path / "in", quiet=True, **options)
    return tmp_path / "in"


def replay_oracle(
    bag: Path, output: Path, config: Config | None = None, **options: Any
) -> dict[str, Any]:
    with BagSource(bag) as source:
        return replay(
            source,
            Engine(Oracle(small_clip()), config or small_config()),
            output,
            quiet=True,
            **options,
        )


def payloads(bag: Path) -> dict[str, list[tuple[int, bytes]]]:
    found: dict[str, list[tuple[int, bytes]]] = {}
    with Reader(bag) as reader:
        for connection, time_ns, data in reader.messages():
            found.setdefault(connection.topic, []).append((time_ns, data))
    return found


@pytest.mark.parametrize(
    ("storage", "compressed"),
    [("mcap", False), ("mcap", True), ("sqlite3", False), ("sqlite3", True)],
)
def test_independent_reader_decodes_every_topic(
    tmp_path: Path, storage: Any, compressed: bool
) -> None:
    summary = replay_oracle(
        input_bag(tmp_path, storage=storage, compressed=compressed), tmp_path / "out"
    )
    assert summary["frames_in"] == summary["frames_estimated"] == 8
    decoded: dict[str, list[Any]] = {}
    with (tmp_path / "out" / "out.mcap").open("rb") as stream:
        for _, channel, message, content in make_reader(
            stream, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            decoded.setdefault(channel.topic, []).append(content)
            if hasattr(content, "header"):
                assert (
                    message.log_time
                    == content.header.stamp.sec * 10**9 + content.header.stamp.nanosec
                )
            assert "offered_qos_profiles" in channel.metadata
    # no base is given; nobody subscribes; a replay has no map
    silent = {"/flow3r/obstacles", "/flow3r/flow", "/flow3r/pose"}
    assert set(decoded) == {bag_topic(topic) for topic in TOPICS} - silent | {"/diagnostics"}
    assert all(
        len(messages) == 8
        for topic, messages in decoded.items()
        if topic not in ("/flow3r/map", "/diagnostics")
    )
    assert {pair.key for pair in decoded["/diagnostics"][0].status[0].values} >= {
        "tracking state",
        "frames dropped",
        "model",
    }
    depth = decoded["/flow3r/depth/image"][4]
    values = np.frombuffer(depth.data, np.float32).reshape(depth.height, depth.width)
    info = decoded["/flow3r/depth/camera_info"][4]
    cloud = decoded["/flow3r/points"][4]
    dtype = [("x", "<f4"), ("y", "<f4"), ("z", "<f4"), ("rgb", "<u4"), ("confidence", "<f4")]
    points = np.frombuffer(cloud.data, dtype).reshape(cloud.height, cloud.width)
    kept = np.isfinite(points["z"])
    assert kept.mean() > 0.3
    np.testing.assert_array_equal(points["z"][kept], values[kept])
    columns = np.arange(depth.width)[None, :].repeat(depth.height, 0)
    np.testing.assert_allclose(
        points["x"][kept], ((columns - info.k[2]) / info.k[0] * values)[kept], rtol=1e-5, atol=1e-6
    )
    status = decoded["/flow3r/status"][-1]
    assert (status.model, status.frames_received, status.frames_estimated, status.latency_ms) == (
        "oracle",
        8,
        8,
        0.0,
    )
    path = decoded["/flow3r/path"][-1]
    assert len(path.poses) == 8


def test_folder_holds_bag_and_report(tmp_path: Path) -> None:
    replay_oracle(input_bag(tmp_path), tmp_path / "out")
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"metadata.yaml", "out.mcap", "summary.json", "report.html", "run.yaml"} <= names
    with BagReader(tmp_path / "out", "/flow3r/moving_mask") as reader:
        assert len(list(reader.frames())) == 8
    assert json.loads((tmp_path / "out" / "summary.json").read_text())["model"] == "oracle"


def test_same_bag_same_bytes(tmp_path: Path) -> None:
    bag = input_bag(tmp_path)
    replay_oracle(bag, tmp_path / "one" / "out")
    replay_oracle(bag, tmp_path / "two" / "out")
    one, two = payloads(tmp_path / "one" / "out"), payloads(tmp_path / "two" / "out")
    assert one.keys() == two.keys()
    for topic, messages in one.items():
        assert messages == two[topic], topic
    files = [
        hashlib.sha256((tmp_path / name / "out" / "out.mcap").read_bytes()).hexdigest()
        for name in ("one", "two")
    ]
    assert files[0] == files[1], "even the file is the same: metadata carries no clock"


def test_replay_equals_run_on_the_same_frames(tmp_path: Path) -> None:
    bag = input_bag(tmp_path)
    replay_oracle(bag, tmp_path / "out")
    with open_source(tmp_path / "clip") as source:
        run(source, Engine(Oracle(small_clip()), small_config()), tmp_path / "run", quiet=True)
    from flow3r_ros.report.page import load_record

    np.testing.assert_array_equal(
        load_record(tmp_path / "run").poses, load_record(tmp_path / "out").poses
    )


def test_selection_and_extrinsics(tmp_path: Path) -> None:
    clip_folder(tmp_path / "clip", small_clip())
    bag_from_video(tmp_path / "clip", tmp_path / "plain", quiet=True)
    T = np.eye(4)
    T[:3, :3] = [[0, 0, 1], [-1, 0, 0], [0, -1, 0]]
    T[:3, 3] = (0.2, 0.0, 0.5)
    store_topics: dict[str, Any] = {
        "/tf_static": (
            "tf2_msgs/msg/TFMessage",
            [(0, tf_message(make, 0, "base_link", "camera_optical_frame", T))],
        )
    }
    from flow3r_ros.bags.types import ros2_types

    with Reader(tmp_path / "plain") as reader:
        for connection, time_ns, data in reader.messages():
            kind, items = store_topics.setdefault(connection.topic, (connection.msgtype, []))
            items.append((time_ns, ros2_types().deserialize_cdr(data, kind)))
    bag = write_bag(tmp_path / "bag", store_topics)
    config = small_config()
    config.node.base_frame = "base_link"
    with BagSource(bag, start=100.0, duration=0.45) as source:
        replay(source, Engine(Oracle(small_clip()), config), tmp_path / "out", quiet=True)
    with (tmp_path / "out" / "out.mcap").open("rb") as stream:
        decoded: dict[str, list[Any]] = {}
        for _, channel, _, content in make_reader(
            stream, decoder_factories=[DecoderFactory()]
        ).iter_decoded_messages():
            decoded.setdefault(channel.topic, []).append(content)
    assert len(decoded["/flow3r/odometry"]) == 5
    edge = decoded["/tf"][0].transforms[0]
    assert (edge.header.frame_id, edge.child_frame_id) == ("odom", "base_link")
    assert decoded["/tf_static"][0].transforms[0].child_frame_id == "camera_optical_frame"
    config.node.base_frame = "trunk"
    with BagSource(bag) as source, pytest.raises(BagError, match="no static transform trunk"):
        replay(source, Engine(Oracle(small_clip()), config), tmp_path / "none", quiet=True)
    assert not (tmp_path / "none").exists()


def test_unusable_images_are_counted_at_their_place(tmp_path: Path) -> None:
    topics = standard_topics(8, size=(168, 126))
    topics["/cam/image"][1][2][1].encoding = "nonsense"
    infos = [
        (ns, info_from_camera(make, info.header, small_clip().camera))
        for ns, info in topics["/cam/camera_info"][1]
    ]
    topics["/cam/camera_info"] = ("sensor_msgs/msg/CameraInfo", infos)
    bag = write_bag(tmp_path / "bag", topics)
    summary = replay_oracle(bag, tmp_path / "out")
    assert summary["frames_in"] == 8
    assert summary["frames_dropped"] == {"unknown_encoding": 1}
    store_type = "flow3r_ros/msg/TrackingStatus"
    from flow3r_ros.bags.types import ros2_types

    statuses = [
        ros2_types().deserialize_cdr(data, store_type)
        for _, data in payloads(tmp_path / "out")["/flow3r/status"]
    ]
    assert [status.frames_received for status in statuses] == [1, 2, 4, 5, 6, 7, 8]
    assert [list(status.drop_reasons) for status in statuses[:3]] == [[], [], ["unknown_encoding"]]


def test_rerun_recording(tmp_path: Path) -> None:
    pytest.importorskip("rerun")
    replay_oracle(input_bag(tmp_path), tmp_path / "out", rerun=tmp_path / "out.rrd")
    assert (tmp_path / "out.rrd").read_bytes()[:3] == b"RRF"
    assert (tmp_path / "out.rrd").stat().st_size > 50_000


def test_existing_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputError, match="exists already"):
        replay_oracle(input_bag(tmp_path), tmp_path / "out")


def child(tmp_path: Path, prologue: str = "") -> subprocess.Popen[str]:
    code = (
        f"{prologue}\nfrom pathlib import Path\nimport test.offline.test_replay as t\n"
        f"t.replay_oracle(Path({str(tmp_path / 'in')!r}), Path({str(tmp_path / 'out')!r}))\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code],
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ, OMP_NUM_THREADS="1"),
    )


def test_killed_replay_leaves_no_bag_and_the_next_one_works(tmp_path: Path) -> None:
    bag = input_bag(tmp_path)
    slow = "import time, flow3r_ros.bags.writer as w\nwrite = w.BagWriter.write\n"
    slow += (
        "def slowly(self, *a):\n    write(self, *a)\n    "
        "time.sleep(0.2)\nw.BagWriter.write = slowly"
    )
    process = child(tmp_path, slow)
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and not any(
        file.stat().st_size > 10_000 for file in tmp_path.glob(".out.flow3r-partial-*/out/*.mcap")
    ):
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left = list(tmp_path.glob(".out.flow3r-partial-*"))
    assert left, "it was killed in the middle"
    assert not (tmp_path / "out").exists()
    replay_oracle(bag, tmp_path / "out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "in", "out"]


def test_full_disk_is_a_typed_error_and_leaves_nothing(tmp_path: Path) -> None:
    input_bag(tmp_path)
    limit = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += (
        "import test.offline.test_replay as t; "
        "t.small_clip()\nresource.setrlimit(resource.RLIMIT_FSIZE, (1500000, 1500000))"
    )
    process = child(tmp_path, limit)
    _, stderr = process.communicate(timeout=280)
    assert "OutputError" in stderr.splitlines()[-1], stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip", "in"]


def test_bag_from_video_keeps_stamps_and_camera(tmp_path: Path) -> None:
    bag = input_bag(tmp_path, every=2)
    with BagReader(bag) as reader:
        frames = list(reader.frames())
    assert [frame.stamp_ns for frame in frames] == [
        100_000_000_000 + index * 200_000_000 for index in range(4)
    ]
    assert frames[0].camera is not None
    assert replace(frames[0].camera, distortion=()) == replace(small_clip().camera, distortion=())
    np.testing.assert_array_equal(frames[1].rgb, small_clip().rgb[2])


def test_an_error_while_writing_behind_comes_back_and_leaves_no_thread(tmp_path: Path) -> None:
    def write() -> None:
        with BagWriter(tmp_path / "bag") as writer, WriteBehind(writer) as behind:
            for stamp in range(100):
                behind.write("/undeclared", stamp, b"")

    with pytest.raises(KeyError, match="undeclared"):
        write()
    assert not [
        thread for thread in threading.enumerate() if thread.name.startswith("write behind")
    ]
    assert not (tmp_path / "bag" / "metadata.yaml").exists()


def test_a_video_that_begins_at_zero_keeps_its_first_picture(tmp_path: Path) -> None:
    """In a message a stamp of zero says that there is none."""
    bag_from_video(write_video(tmp_path / "video.mp4", frames=4), tmp_path / "bag", quiet=True)
    with BagSource(tmp_path / "bag") as source:
        assert [frame.stamp_ns for frame in source][:2] == [1, 100_000_000]
        assert not source.drops
