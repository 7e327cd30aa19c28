"""A few packed kilobytes never become gigabytes: one bad message or chunk is one loss, and the rest
of the bag is read."""

from __future__ import annotations

import bz2
import resource
import shutil
from pathlib import Path

import lz4.frame
import pytest
from mcap.writer import CompressionType
from mcap.writer import Writer as McapWriter

from flow3r_ros.bags import limits
from flow3r_ros.bags.limits import UnpackError, file_limit, unpack, zstd
from flow3r_ros.bags.reader import BagReader
from flow3r_ros.bags.types import ros2_types
from flow3r_ros.errors import BagError
from test.bags.factory import standard_topics, write_bag

PACK = {"zstd": zstd.compress, "lz4": lz4.frame.compress, "bz2": bz2.compress}


def zeros(gibibytes: int) -> bytes:
    """A zstd bomb that unpacks to so many GiB."""
    packer = zstd.ZstdCompressor()
    block = bytes(1 << 26)
    return b"".join([*(packer.compress(block) for _ in range(16 * gibibytes)), packer.flush()])


@pytest.mark.parametrize("packing", PACK)
def test_unpacking_stops_at_the_declared_size(packing: str) -> None:
    packed = PACK[packing](bytes(100_000))
    assert unpack(packed, packing, 100_000) == bytes(100_000)  # type: ignore[arg-type]
    with pytest.raises(UnpackError, match="more than 99999"):
        unpack(packed, packing, 99_999)  # type: ignore[arg-type]
    with pytest.raises(UnpackError, match="cut off"):
        unpack(packed[:-9], packing)  # type: ignore[arg-type]


def test_frames_one_after_the_other_are_unpacked_together() -> None:
    assert unpack(zstd.compress(b"one") + zstd.compress(b"two"), "zstd") == b"onetwo"


def write_mcap(path: Path, messages: list[tuple[int, bytes]], chunk: bytes = b"") -> Path:
    """Images in chunks of one message each; `chunk` replaces the packed records of the third."""
    with path.open("wb") as stream:
        writer = McapWriter(stream, chunk_size=1, compression=CompressionType.ZSTD)
        writer.start("ros2")
        schema = writer.register_schema("sensor_msgs/msg/Image", "ros2msg", b"uint8 x")
        channel = writer.register_channel("/cam/image", "cdr", schema)
        for ns, data in messages:
            writer.add_message(channel, ns, data, ns)
        writer.finish()
    return path


def images(count: int) -> list[tuple[int, bytes]]:
    return [
        (ns, bytes(ros2_types().serialize_cdr(message, "sensor_msgs/msg/Image")))
        for ns, message in standard_topics(count)["/cam/image"][1]
    ]


def test_a_bomb_among_messages_is_one_counted_drop(tmp_path: Path) -> None:
    messages = images(5)
    messages[2] = (messages[2][0], zeros(2))
    path = write_mcap(tmp_path / "bag.mcap", messages)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with BagReader(path) as reader:
        assert len(list(reader.frames())) == 4
        assert dict(reader.drops) == {"corrupt_message": 1}
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 3 * limits.MAX_UNPACKED


def test_a_bomb_in_a_chunk_costs_that_chunk(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "bag.mcap", images(5))
    data = path.read_bytes()
    third = -1
    for _ in range(3):
        third = data.index(b"\x28\xb5\x2f\xfd", third + 1)
    size = int.from_bytes(data[third - 8 : third], "little")
    bomb = zstd.compress(bytes(40 << 20))
    padding = size - len(bomb) - 8
    assert padding >= 0
    skippable = b"\x50\x2a\x4d\x18" + padding.to_bytes(4, "little") + bytes(padding)
    path.write_bytes(data[:third] + bomb + skippable + data[third + size :])
    with BagReader(path) as reader:
        assert len(list(reader.frames())) == 4
        assert any("1 damaged chunks" in note for note in reader.notes), reader.notes


@pytest.mark.parametrize("suffix", ["mcap", "db3"])
def test_a_packed_file_that_is_a_bomb_is_refused(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins like a bag: only its size gives it away; nothing stays in the temp folder."""
    bag = write_bag(tmp_path / "bag", standard_topics(2), {"db3": "sqlite3"}.get(suffix, "mcap"))
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    packed = zstd.compress((bag / f"bag.{suffix}").read_bytes())
    path = tmp_path / f"bag.{suffix}.zstd"
    path.write_bytes(packed + zeros(1))
    assert file_limit(path.stat().st_size) == limits.MAX_UNPACKED
    with pytest.raises(BagError, match=r"unpacks to more than 268435456 bytes.*zstd -d"):
        BagReader(path).__enter__()
    assert list(temporary.iterdir()) == []


def test_packed_and_unpacked_beside_each_other_are_one_file(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(4), "sqlite3")
    packed = zstd.compress((bag / "bag.db3").read_bytes())
    (bag / "bag.db3.zstd").write_bytes(packed)
    for metadata in (True, False):
        if not metadata:
            (bag / "metadata.yaml").unlink()
        with BagReader(bag) as reader:
            stamps = [frame.stamp_ns for frame in reader.frames()]
        assert len(stamps) == len(set(stamps)) == 4
    (bag / "bag.db3").unlink()
    with BagReader(bag) as reader:
        assert len(list(reader.frames())) == 4


def test_metadata_names_the_packed_file_and_the_unpacked_one_lies_there(tmp_path: Path) -> None:
    bag = write_bag(tmp_path / "bag", standard_topics(3), "mcap", "file")
    packed = bag / "bag.mcap.zstd"
    (bag / "bag.mcap").write_bytes(zstd.decompress(packed.read_bytes()))
    packed.unlink()
    shutil.copy(bag / "metadata.yaml", tmp_path)
    with BagReader(bag / "metadata.yaml") as reader:
        assert len(list(reader.frames())) == 3
        assert reader.notes == []
