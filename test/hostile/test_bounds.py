"""No file makes us read, or unpack, without bound."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow3r_ros.config import load_config
from flow3r_ros.errors import ConfigError, Flow3rError, ModelError
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.mappings import MAX_FILE_BYTES
from flow3r_ros.network.catalog import read_folder, user_models
from flow3r_ros.network.checkpoint import import_model
from flow3r_ros.network.config import load_architecture
from flow3r_ros.training.labels.clip_index import read_index
from flow3r_ros.training.labels.clip_store import clip_path
from flow3r_ros.training.shards import ShardError, read_shard, write_shard
from flow3r_ros.training.train_config import load_train_settings
from test.hostile.workshop import download
from test.network.factories import tiny_config

READERS: dict[str, Callable[[Path], Any]] = {
    "settings.yaml": load_config,
    "train.yaml": load_train_settings,
    "config.json": load_architecture,
    "manifest.yaml": lambda path: read_folder(path.parent),
    "camera.json": load_camera,
}
LAUGHS = "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 64))
BAD_TEXTS: dict[str, Callable[[str], bytes]] = {
    "56 MB": lambda form: b'{"a": "' + b"x" * (56 << 20) + b'"}',
    "just too large": lambda form: b'{"a": "' + b"x" * MAX_FILE_BYTES + b'"}',
    "not UTF-8": lambda form: b'{"a": "\xff\xfe"}',
    "zeros": lambda form: bytes(1000),
    "20000 deep": lambda form: b"[" * 20000 + b"]" * 20000,
    "20000 deep in a mapping": lambda form: b'{"model": ' + b"[" * 20000 + b"]" * 20000 + b"}",
    "20000 open": lambda form: b"[" * 20000,
    "20000 deep in lines": lambda form: b"- " * 20000 + b"x",
    "20000 deep in keys": lambda form: b"? " * 20000 + b"x",
    "long integer": lambda form: b'{"width": ' + b"9" * 20000 + b"}",
    "infinite": lambda form: b'{"width": 1e999, "height": 1e999}',
    "not a mapping": lambda form: b"[1, 2]",
    "numbers as names": lambda form: b"{1: 2}",
    "wrong parts": lambda form: b'{"model": 3, "encoder": [], "name": {}, "width": null}',
    "laughs": lambda form: LAUGHS.encode(),
    "contains itself": lambda form: b"a: &a [*a]",
    "runs code": lambda form: b'a: !!python/object/apply:os.system ["touch executed"]',
    "ros parameters that are none": lambda form: b'{"node": {"ros__parameters": [1]}}',
}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("kind", BAD_TEXTS)
def test_small_files_are_read_within_bounds(tmp_path: Path, name: str, kind: str) -> None:
    path = tmp_path / name
    path.write_bytes(BAD_TEXTS[kind](name))
    with pytest.raises(Flow3rError) as caught:
        READERS[name](path)
    assert str(path) in str(caught.value)
    assert caught.value.cure
    assert len(str(caught.value)) < 800
    assert sorted(entry.name for entry in tmp_path.iterdir()) == [name]


def test_endless_and_missing_files() -> None:
    for path in (Path("/dev/zero"), Path("/"), Path("/absent/settings.yaml")):
        with pytest.raises(ConfigError):
            load_config(path)


def test_an_override_of_something_that_is_no_group(tmp_path: Path) -> None:
    (tmp_path / "settings.yaml").write_text("model: flow3r_nano\n")
    with pytest.raises(ConfigError, match="model"):
        load_config(tmp_path / "settings.yaml", {"model.name": "flow3r_nano"})


def leaves(tree: dict[str, Any], before: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Paths of the numbers in a tree."""
    found: list[tuple[str, ...]] = []
    for key, value in tree.items():
        if isinstance(value, dict):
            found += leaves(value, (*before, key))
        elif isinstance(value, (int, float)) and not isinstance(value, bool):
            found.append((*before, key))
    return found


ARCHITECTURE = json.loads(tiny_config(evidence=True).model_dump_json())


@pytest.mark.parametrize("number", [100_000, 10**400, -1, float("nan")])
@pytest.mark.parametrize("leaf", leaves(ARCHITECTURE), ids=".".join)
def test_numbers_of_an_architecture_are_bounded(
    tmp_path: Path, leaf: tuple[str, ...], number: float
) -> None:
    if leaf[-1] in ("position_base", "rope_base") and number == 100_000:
        pytest.skip("a base of the position embedding may be this large")
    tree = json.loads(json.dumps(ARCHITECTURE))
    inner = tree
    for key in leaf[:-1]:
        inner = inner[key]
    inner[leaf[-1]] = number
    (tmp_path / "config.json").write_text(json.dumps(tree))
    with pytest.raises(ModelError, match=r"config\.json"):
        load_architecture(tmp_path / "config.json")


@pytest.mark.parametrize(
    "given",
    [
        {"resolution": [10**9, 10**9]},
        {"resolution": [56, 42], "pixels": 10**12},
        {"resolution": [56, 42], "window": 10**6},
        {"resolution": [0, 0]},
        {"resolution": [-56, 42]},
    ],
)
def test_numbers_of_a_manifest_are_bounded(tmp_path: Path, given: dict[str, Any]) -> None:
    manifest = {"name": "x", "source": "y", "parameters": 1, "input": given}
    (tmp_path / "manifest.yaml").write_text(json.dumps(manifest))
    with pytest.raises(ModelError, match="input"):
        read_folder(tmp_path)


HEADERS = {
    "2^60 bytes": struct.pack("<Q", 1 << 60),
    "90 MB that are not there": struct.pack("<Q", 90 << 20) + b"{}",
    "20000 deep": struct.pack("<Q", 40000) + b"[" * 20000 + b"]" * 20000,
    "beyond the file": b"",
    "a tensor of 2^60": b"",
    "names with escapes": b"",
}


@pytest.mark.parametrize("kind", HEADERS)
def test_headers_of_safetensors(tmp_path: Path, kind: str) -> None:
    data = HEADERS[kind]
    if not data:
        tensor: dict[str, Any] = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}
        if kind == "beyond the file":
            tensor["data_offsets"] = [0, 1 << 40]
        if kind == "a tensor of 2^60":
            tensor["shape"] = [1 << 60, 4]
        header = json.dumps({"a\x1b[2J\n": tensor}).encode()
        data = struct.pack("<Q", len(header)) + header + bytes(4)
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    (tmp_path / "config.json").write_text(tiny_config().model_dump_json())
    with pytest.raises(ModelError) as caught:
        import_model(path, "x")
    assert str(caught.value).isprintable()
    assert not list(user_models().rglob("*"))


def test_config_that_points_elsewhere(tmp_path: Path) -> None:
    """A link out of a downloaded folder is read as what it should be, and not quoted."""
    secret = tmp_path / "secret"
    secret.write_text("password: hunter2\n" * 3)
    file = download(tmp_path / "download")
    (file.parent / "config.json").unlink()
    (file.parent / "config.json").symlink_to(secret)
    with pytest.raises(ModelError) as caught:
        import_model(file)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("kind", ["no metadata", "not JSON", "truncated header"])
def test_shards_with_a_right_hash_and_wrong_content(tmp_path: Path, kind: str) -> None:
    import hashlib

    write_shard(tmp_path / "a.shard", {"x": np.zeros(3)}, {"a": 1})
    payload = (tmp_path / "a.shard").read_bytes()[:-32]
    header: dict[str, Any] = json.loads(payload[8 : 8 + int.from_bytes(payload[:8], "little")])
    if kind == "no metadata":
        del header["__metadata__"]
    if kind == "not JSON":
        header["__metadata__"] = {"json": "[["}
    text = json.dumps(header).encode()[: 20 if kind == "truncated header" else None]
    payload = struct.pack("<Q", len(text)) + text + bytes(24)
    (tmp_path / "a.shard").write_bytes(payload + hashlib.sha256(payload).digest())
    with pytest.raises(ShardError, match=r"a\.shard"):
        read_shard(tmp_path / "a.shard")


@pytest.mark.parametrize(
    "clips", [{"../../x": 3}, {"/tmp/x": 3}, {"a" * 64: 10**9}, {"a" * 64: "many"}, [1], "x"]
)
def test_an_index_of_clips_from_elsewhere(tmp_path: Path, clips: Any) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps({"source": "s", "content": "c", "clips": clips}))
    assert read_index(path) is None


@pytest.mark.parametrize("key", ["../../x", "", "a/b", "..", "a.b", "a\n"])
def test_a_clip_key_is_not_a_path(tmp_path: Path, key: str) -> None:
    with pytest.raises(ShardError, match="no key of a clip"):
        clip_path(tmp_path, key)
