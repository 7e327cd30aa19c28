"""Every kind of bag gives its frames."""

from __future__ import annotations

import shutil
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
    stamps,
    standard_topics,
    write_bag,
    write_ros1_bag,
)


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
