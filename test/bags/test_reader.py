"""Every kind of bag gives its frames; every kind of damage gives what is left, or a typed error."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.bags.reader import BagReader, OdometrySample
from flow3r_ros.bags.types import make
from flow3r_ros.errors import BagError
from flow3r_ros.types import Frame, Inertial
from flow3r_ros.wire.transforms import header_of
from test.bags.factory import (
    CAMERA,
    START,
    STEP,
    image_messages,
    picture,
    standard_topics,
    write_bag,
    write_ros1_bag,
)


def stamps(path: Path, **options: object) -> list[int]:
    with BagReader(path) as reader:
        return [frame.stamp_ns for frame in reader.frames(**options)]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("storage", "compression", "kind"),
    [
        ("mcap", "", "raw"),
        ("mcap", "", "jpeg"),
        ("mcap", "", "png"),
        ("mcap", "storage", "raw"),
        ("mcap", "message", "raw"),
        ("mcap", "file", "raw"),
        ("sqlite3", "", "raw"),
        ("sqlite3", "", "jpeg"),
        ("sqlite3", "message", "raw"),
        ("sqlite3", "file", "raw"),
    ],
)
def test_every_storage_and_compression(
    tmp_path: Path, storage: str, compression: str, kind: str
) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(5, kind), storage, compression)
    with BagReader(bag) as reader:
        assert reader.total == 5
        frames = list(reader.frames())
        assert not reader.notes
    assert [frame.stamp_ns for frame in frames] == [START + index * STEP for index in range(5)]
    assert [frame.id for frame in frames] == list(range(5))
    assert {frame.source_frame for frame in frames} == {"cam_optical"}
    assert all(frame.camera == CAMERA for frame in frames), (
        "the first frame knows the camera as well"
    )
    error = np.abs(frames[3].rgb.astype(int) - picture(3))
    assert error.mean() < (0.01 if kind != "jpeg" else 6)


def test_single_files_and_ros1(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(3))
    assert len(stamps(bag / "bag.mcap")) == 3
    with BagReader(write_ros1_bag(tmp_path / "old.bag", 4)) as reader:
        frames = list(reader.frames())
    assert [frame.stamp_ns for frame in frames] == [START + index * STEP for index in range(4)]
    np.testing.assert_array_equal(frames[2].rgb, picture(2))
    assert frames[0].camera == CAMERA


def test_split_bag(tmp_path: Path) -> None:
    topics = standard_topics(6)
    parts = []
    for part, wanted in enumerate((slice(0, 3), slice(3, 6))):
        cut = {name: (kind, items[wanted]) for name, (kind, items) in topics.items()}
        parts.append(write_bag(tmp_path / f"part_{part}", cut))
    whole = tmp_path / "whole"
    whole.mkdir()
    names = [f"whole_{part}.mcap" for part in range(2)]
    for folder, name in zip(parts, names, strict=True):
        shutil.copy(folder / f"{folder.name}.mcap", whole / name)
    text = (parts[0] / "metadata.yaml").read_text()
    (whole / "metadata.yaml").write_text(
        text.replace("- part_0.mcap", "- whole_0.mcap\n  - whole_1.mcap", 1)
    )
    assert stamps(whole) == [START + index * STEP for index in range(6)]
    (whole / names[0]).unlink()
    with BagReader(whole) as reader:
        assert len(list(reader.frames())) == 3
        assert reader.notes == ["whole_0.mcap is missing"]


def test_selection_of_time_and_frames(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(10))
    all_stamps = [START + index * STEP for index in range(10)]
    assert stamps(bag, every=3) == all_stamps[::3]
    assert stamps(bag, start=0.1) == [ns for ns in all_stamps if ns + 1000 >= START + 100_000_000]
    assert len(stamps(bag, start=0.1, duration=0.1)) == 3


def test_topic_choice(tmp_path: Path) -> None:
    topics = standard_topics(2)
    topics["/other/image"] = ("sensor_msgs/msg/Image", image_messages(1))
    bag = write_bag(tmp_path / "bag", topics)
    with (
        pytest.raises(
            BagError, match=r"several image topics: /cam/image \(2\), /other/image \(1\)"
        ),
        BagReader(bag),
    ):
        pass
    with pytest.raises(BagError, match="no images on /nowhere"), BagReader(bag, "/nowhere"):
        pass
    with BagReader(bag, "/other/image") as reader:
        assert len(list(reader.frames())) == 1


def test_static_transforms_and_odometry(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(4))
    with BagReader(bag) as reader:
        T = reader.static.lookup("base", "cam_optical")
        assert T is not None
        np.testing.assert_allclose(T[:3, 3], (0.1, 0.2, 0.3))
        inverse = reader.static.lookup("cam_optical", "base")
        assert inverse is not None
        np.testing.assert_allclose(inverse @ T, np.eye(4), atol=1e-12)
        assert reader.static.lookup("base", "elsewhere") is None
        samples = [
            event for event in reader.events(odometry=True) if isinstance(event, OdometrySample)
        ]
    assert [round(sample.T_odom_child[0, 3], 6) for sample in samples] == [0.0, 0.1, 0.2, 0.3]
    assert samples[1].stamp_ns == START + STEP


def test_zero_stamps_fall_back_to_receive_time_and_say_so(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(3, stamp_zero=True))
    with BagReader(bag) as reader:
        assert [frame.stamp_ns for frame in reader.frames()] == [
            START + index * STEP + 1000 for index in range(3)
        ]
        assert reader.notes == ["header stamps are zero; receive times are used instead"]


def test_unusable_images_are_counted_and_skipped(tmp_path: Path) -> None:
    topics = standard_topics(5)
    items = topics["/cam/image"][1]
    items[1][1].encoding = "nonsense"
    items[2][1].step = 3
    items[3][1].data = items[3][1].data[:50]
    bag = write_bag(tmp_path / "bag", topics)
    with BagReader(bag) as reader:
        assert [frame.id for frame in reader.frames()] == [0, 1]
        assert dict(reader.drops) == {"unknown_encoding": 1, "bad_step": 1, "corrupt_image": 1}
        assert len(reader.notes) == 3


def test_no_images(tmp_path: Path) -> None:
    topics = standard_topics(2)
    del topics["/cam/image"]
    with (
        pytest.raises(BagError, match="holds no images"),
        BagReader(write_bag(tmp_path / "bag", topics)),
    ):
        pass


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89MCAP0\r\n"])
def test_rubbish_is_a_typed_error(tmp_path: Path, content: bytes) -> None:
    folder = tmp_path / "bag"
    folder.mkdir()
    (folder / "bag_0.mcap").write_bytes(content)
    (folder / "bag_0.db3").write_bytes(content)
    for path in (folder, folder / "bag_0.mcap", folder / "bag_0.db3", tmp_path / "missing"):
        with pytest.raises(BagError), BagReader(path):
            pass
    (tmp_path / "old.bag").write_bytes(content)
    with pytest.raises(BagError), BagReader(tmp_path / "old.bag"):
        pass


def test_missing_or_damaged_metadata(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(4))
    (bag / "metadata.yaml").write_text("rosbag2_bagfile_information: [")
    assert len(stamps(bag)) == 4
    (bag / "metadata.yaml").unlink()
    with BagReader(bag) as reader:
        assert len(list(reader.frames())) == 4
        assert reader.notes == ["metadata.yaml is missing; the files were read without it"]


@pytest.mark.parametrize("compression", ["", "storage"])
def test_mcap_torn_anywhere_gives_a_prefix_or_a_typed_error(
    tmp_path: Path, compression: str
) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(150), "mcap", compression)
    file = bag / "bag.mcap"
    whole = file.read_bytes()
    expected = [START + index * STEP for index in range(150)]
    recovered = []
    for share in (0.0001, 0.01, 0.2, 0.5, 0.77, 0.95, 0.999, 1 - 1 / len(whole)):
        file.write_bytes(whole[: int(len(whole) * share)])
        try:
            with BagReader(bag) as reader:
                found = [frame.stamp_ns for frame in reader.frames()]
                assert any(
                    "torn" in note or "without its index" in note for note in reader.notes
                ), reader.notes
        except BagError:
            found = []
        assert found == expected[: len(found)]
        recovered.append(len(found))
    assert recovered == sorted(recovered)
    assert recovered[3] > 40, "half a file holds much more than nothing"
    assert recovered[-1] == 150


def test_damaged_chunk_in_the_middle_costs_only_itself(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(600), "mcap", "storage")
    file = bag / "bag.mcap"
    data = bytearray(file.read_bytes())
    middle = data.index(b"\x28\xb5\x2f\xfd", len(data) // 3)
    data[middle : middle + 64] = b"\xff" * 64
    file.write_bytes(data)
    with BagReader(bag) as reader:
        found = [frame.stamp_ns for frame in reader.frames()]
        notes = reader.notes
    assert 300 < len(found) < 600
    assert found == sorted(set(found))
    assert found[-1] == START + 599 * STEP
    assert any("1 damaged chunks read as far as they go" in note for note in notes), notes


def test_corrupt_sqlite_page(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(60), "sqlite3")
    file = bag / "bag.db3"
    data = bytearray(file.read_bytes())
    with sqlite3.connect(file) as database:
        page = database.execute("PRAGMA page_size").fetchone()[0]
    middle = len(data) // 2 // page * page
    data[middle : middle + 40 * page] = b"\xff" * (40 * page)
    file.write_bytes(data)
    with BagReader(bag) as reader:
        found = [frame.stamp_ns for frame in reader.frames()]
        assert 20 < len(found) <= 60
        assert found == sorted(set(found))
    file.write_bytes(bytes(data[:page]))
    with pytest.raises(BagError), BagReader(bag):
        pass


def test_unfinished_sqlite_recording_is_read_from_its_log(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(4), "sqlite3")
    file = bag / "bag.db3"
    database = sqlite3.connect(file)
    database.execute("PRAGMA journal_mode=WAL")
    rows = database.execute(
        "SELECT topic_id, timestamp + 1000000000, data FROM messages"
    ).fetchall()
    database.executemany("INSERT INTO messages (topic_id, timestamp, data) VALUES (?, ?, ?)", rows)
    database.commit()
    killed = tmp_path / "killed"
    killed.mkdir()
    for name in ("bag.db3", "bag.db3-wal"):
        shutil.copy(bag / name, killed / name)
    database.close()
    assert len(stamps(killed)) == 8


def test_out_of_order_stamps_and_mixed_sizes_come_through_as_recorded(tmp_path: Path) -> None:
    topics = standard_topics(4)
    items = topics["/cam/image"][1]
    items[2][1].header.stamp.sec -= 5
    items[3] = (items[3][0], image_messages(4, size=(32, 24))[3][1])
    with BagReader(write_bag(tmp_path / "bag", topics)) as reader:
        frames = list(reader.frames())
        assert any("it is for 64x48, images are 32x24" in note for note in reader.notes)
    assert frames[2].stamp_ns < frames[1].stamp_ns
    assert frames[3].rgb.shape == (24, 32, 3)
    assert frames[3].camera is None


@pytest.mark.parametrize(
    "kind", ["mcap", "mcap storage", "mcap file", "sqlite3", "sqlite3 message", "ros1"]
)
def test_random_damage_never_escapes_the_typed_errors(tmp_path: Path, kind: str) -> None:
    if kind == "ros1":
        bag = file = write_ros1_bag(tmp_path / "old.bag", 6)
    else:
        storage, _, compression = kind.partition(" ")
        bag = write_bag(tmp_path / "bag", standard_topics(12), storage, compression)
        file = next(path for path in bag.iterdir() if path.name != "metadata.yaml")
    whole = file.read_bytes()
    random = np.random.default_rng(5)
    for turn in range(24):
        data = bytearray(whole)
        at = int(random.integers(len(data)))
        if turn % 3 == 0:
            del data[at:]
        elif turn % 3 == 1:
            data[at : at + 900] = random.bytes(min(900, len(data) - at))
        else:
            for _ in range(12):
                data[int(random.integers(len(data)))] = int(random.integers(256))
        file.write_bytes(data)
        with suppress(BagError), BagReader(bag) as reader:
            assert all(frame.rgb.ndim == 3 for frame in reader.frames())


def test_masks_and_readings_come_along(tmp_path: Path) -> None:
    topics = standard_topics(4)
    mask = np.zeros((12, 16), np.uint8)
    mask[6:] = 255
    header = header_of(make, START, "cam_optical")
    fields = {"height": 12, "width": 16, "encoding": "mono8", "is_bigendian": 0, "step": 16}
    shown = make("sensor_msgs/msg/Image", header=header, data=mask.reshape(-1), **fields)
    topics["/mask"] = ("sensor_msgs/msg/Image", [(START + 2 * STEP, shown)])
    zero = make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=0.0)
    still = make("geometry_msgs/msg/Quaternion", x=0.0, y=0.0, z=0.0, w=1.0)
    unknown = {
        f"{name}_covariance": np.zeros(9)
        for name in ("orientation", "angular_velocity", "linear_acceleration")
    }
    imu = [
        (
            START + index * STEP // 4,
            make(
                "sensor_msgs/msg/Imu",
                header=header_of(make, START + index * STEP // 4, "base"),
                orientation=still,
                angular_velocity=zero,
                linear_acceleration=make("geometry_msgs/msg/Vector3", x=0.0, y=0.0, z=9.81),
                **unknown,
            ),
        )
        for index in range(8)
    ]
    topics["/imu"] = ("sensor_msgs/msg/Imu", imu)
    bag = write_bag(tmp_path / "bag", topics)
    with BagReader(bag) as reader:
        assert reader.image_topic == "/cam/image", "a mask is no camera"
        events = list(reader.events(imu="base"))
    frames = [event for event in events if isinstance(event, Frame)]
    assert [frame.ignored is not None for frame in frames] == [False, False, True, True]
    ignored = frames[2].ignored
    assert ignored is not None
    np.testing.assert_array_equal(ignored, mask > 0)
    readings = [event for event in events if isinstance(event, Inertial)]
    assert len(readings) == 8
    assert isinstance(events[0], Inertial), "what was felt before the first image comes before it"
    np.testing.assert_allclose(readings[0].acceleration, (0, 0, 9.81))
    np.testing.assert_allclose(readings[0].down, (0, 0, -1))
    with BagReader(bag) as reader:
        assert not any(isinstance(event, Inertial) for event in reader.events())
