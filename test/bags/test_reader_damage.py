"""Damaged bags: every kind of damage gives what is left, or a typed error."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.bags.reader import BagReader
from flow3r_ros.errors import BagError
from test.bags.factory import (
    START,
    STEP,
    stamps,
    standard_topics,
    write_bag,
    write_ros1_bag,
)


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
