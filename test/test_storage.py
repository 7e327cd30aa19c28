"""Object storage through a real S3 server: bytes come back, objects are whole, and whatever goes
wrong is one line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from flow3r_ros import storage
from flow3r_ros.errors import InputError, StorageError
from flow3r_ros.storage import RemotePath, local_copy, location, write
from test.object_store import ObjectStore, object_store

pytest.importorskip("s3fs", reason="the fleet extra (s3fs) is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        running.make_bucket("robots")
        yield running


def test_an_address_is_told_from_a_path() -> None:
    assert location("file:///data/a%20b") == Path("/data/a b")
    assert location("s3:/data") == Path("s3:/data")
    assert location("S3://bucket/x/") == RemotePath("s3://bucket/x")
    assert location("s3://b/x/y.mp4").parent == RemotePath("s3://b/x")
    assert (location("gs://b/x.mp4").stem, location("gs://b/x.mp4").suffix) == ("x", ".mp4")
    with pytest.raises(InputError, match="no storage that flow3r reads"):
        location("hdfs://host/x")
    with pytest.raises(InputError, match="names no bucket"):
        location("s3://")


def test_what_is_written_is_read(server: ObjectStore, tmp_path: Path) -> None:
    folder = RemotePath("s3://robots/one")
    assert not folder.exists()
    write(folder / "a.txt", b"first")
    write(folder / "a.txt", b"second")
    write(folder / "deep" / "b.bin", bytes(range(100)))
    assert (folder / "a.txt").read_text() == "second"
    assert (folder / "deep" / "b.bin").read_range(10, 13) == bytes([10, 11, 12])
    assert folder.is_dir()
    assert not (folder / "a.txt").is_dir()
    assert list(folder.glob("*.txt")) == [folder / "a.txt"]
    assert list((folder / "nothing").glob("*")) == []
    assert {name: size for name, (size, _) in folder.listing().items()} == {
        "a.txt": 6, "deep/b.bin": 100,
    }  # fmt: skip
    with local_copy(folder) as copy:
        assert copy.name == "one"
        assert (copy / "deep" / "b.bin").read_bytes() == bytes(range(100))
    assert not copy.exists()
    with local_copy(folder / "a.txt") as copy:
        assert copy.read_text() == "second"
    with local_copy(tmp_path) as same:
        assert same == tmp_path
    (folder / "a.txt").unlink()
    (folder / "a.txt").unlink(missing_ok=True)
    with pytest.raises(FileNotFoundError):
        (folder / "a.txt").read_bytes()
    with pytest.raises(InputError, match="no such file or folder"), local_copy(folder / "a.txt"):
        pass


def test_a_name_that_leaves_the_folder_is_refused(server: ObjectStore) -> None:
    write(RemotePath("s3://robots/evil/../../etc"), b"x")
    with pytest.raises(InputError, match="rename it"), local_copy(RemotePath("s3://robots/evil")):
        pass


def test_a_missing_bucket_is_said(server: ObjectStore) -> None:
    nowhere = RemotePath("s3://nobody/x")
    for ask in (nowhere.read_bytes, lambda: write(nowhere, b"x"), lambda: list(nowhere.glob("*"))):
        with pytest.raises(StorageError, match="there is no bucket nobody"):
            ask()


def test_missing_credentials_are_said(
    server: ObjectStore, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    storage.forget_connections()
    with pytest.raises(StorageError, match="no credentials were found; set AWS_PROFILE"):
        RemotePath("s3://robots/x").read_bytes()
    storage.forget_connections()


def test_refused_access_is_said(server: ObjectStore) -> None:
    """Moto checks keys from here on, and knows none."""
    server.post("reset-auth", "0")
    try:
        with pytest.raises(StorageError, match=r"s3://robots/x: access refused \(.+\); check"):
            RemotePath("s3://robots/x").read_bytes()
    finally:
        server.post("reset-auth", "inf")


def test_a_package_that_is_not_installed_is_said() -> None:
    pytest.importorskip("fsspec")
    with pytest.raises(StorageError, match="gs:// needs gcsfs; pip install gcsfs"):
        RemotePath("gs://bucket/x").exists()


def test_a_lost_connection_is_tried_again_and_then_said(monkeypatch: pytest.MonkeyPatch) -> None:
    with object_store() as server:
        server.make_bucket("robots")
        path = RemotePath("s3://robots/x")
        path.write_bytes(b"kept")
        server.kill()
        with pytest.raises(StorageError, match=r"the connection was lost 3 times; check network"):
            path.read_bytes()
        waits: list[float] = []

        def wait(seconds: float) -> None:
            waits.append(seconds)
            assert len(waits) == 1, "the first repetition finds the server"
            server.start()
            server.make_bucket("robots")

        monkeypatch.setattr(storage, "sleep", wait)
        path.write_bytes(b"again")
        assert waits == [0.05]
        monkeypatch.undo()
        assert path.read_bytes() == b"again"
