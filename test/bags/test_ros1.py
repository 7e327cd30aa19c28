"""ROS 1 bags without an index, and ROS 1 messages in mcap."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from mcap.writer import Writer as McapWriter
from rosbags.rosbag1 import Reader as Ros1Reader
from rosbags.rosbag1 import Writer as Ros1Writer

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.salvage_ros1 import SalvagedRos1
from flow3r_ros.errors import BagError
from test.bags.factory import START, STEP, picture, write_ros1_bag


@pytest.mark.parametrize("compression", ["", "BZ2", "LZ4"])
def test_the_salvager_finds_what_rosbags_reads(tmp_path: Path, compression: str) -> None:
    path = write_ros1_bag(tmp_path / "a.bag", 6)
    with Ros1Reader(path) as reader:
        expected = [(c.topic, c.msgtype, ns, bytes(data)) for c, ns, data in reader.messages()]
        if compression:
            writer = Ros1Writer(tmp_path / "b.bag")
            writer.set_compression(getattr(Ros1Writer.CompressionFormat, compression))
            with writer:
                known = {
                    c.id: writer.add_connection(
                        c.topic, c.msgtype, msgdef=c.msgdef.data, md5sum=c.digest
                    )
                    for c in reader.connections
                }
                for connection, ns, data in reader.messages():
                    writer.write(known[connection.id], ns, data)
            path = tmp_path / "b.bag"
    salvaged = SalvagedRos1(path)
    found = [(c.topic, c.msgtype, ns, d) for c, ns, d in salvaged.messages(salvaged.connections)]
    assert sorted(found) == sorted(expected)
    assert salvaged.lost == ""


def test_an_unfinished_recording_is_read_as_far_as_it_goes(tmp_path: Path) -> None:
    whole = write_ros1_bag(tmp_path / "whole.bag", 12).read_bytes()
    counts = []
    for share in (0.05, 0.3, 0.6, 0.95, 1.0):
        path = tmp_path / "drive.bag.active"
        path.write_bytes(whole[: int(len(whole) * share)])
        try:
            with BagReader(path) as reader:
                stamps = [frame.stamp_ns for frame in reader.frames()]
        except BagError:
            stamps = []
        assert stamps == [START + index * STEP for index in range(len(stamps))]
        counts.append(len(stamps))
    assert counts == sorted(counts)
    assert counts[2] > 2
    assert counts[-1] == 12


def mcap_of(path: Path, bag: Path, encoding: str) -> Path:
    with Ros1Reader(bag) as reader, path.open("wb") as stream:
        writer = McapWriter(stream)
        writer.start("ros1" if encoding == "ros1" else "")
        channels = {}
        for connection in reader.connections:
            kind = connection.msgtype.replace("/msg/", "/")
            schema = writer.register_schema(kind, "ros1msg", connection.msgdef.data.encode())
            channels[connection.id] = writer.register_channel(connection.topic, encoding, schema)
        for connection, ns, data in reader.messages():
            writer.add_message(channels[connection.id], ns, bytes(data), ns)
        writer.finish()
    return path


def test_ros1_messages_in_mcap(tmp_path: Path) -> None:
    bag = write_ros1_bag(tmp_path / "a.bag", 3)
    with BagReader(mcap_of(tmp_path / "a.mcap", bag, "ros1")) as reader:
        frames = list(reader.frames())
        assert any("ROS 1 messages" in note for note in reader.notes)
    assert [frame.stamp_ns for frame in frames] == [START + index * STEP for index in range(3)]
    np.testing.assert_array_equal(frames[1].rgb, picture(1))


def test_messages_that_are_not_of_ros_are_named(tmp_path: Path) -> None:
    bag = write_ros1_bag(tmp_path / "a.bag", 2)
    path = mcap_of(tmp_path / "a.mcap", bag, "protobuf")
    with pytest.raises(BagError, match="messages are protobuf, not ROS messages"):
        BagReader(path).__enter__()
