"""Nothing from outside chooses where we write, or how much we read: attacks by kind.

Each ends in one line that says what is wrong, and what stood there before still stands. Bags that
unpack without bound are attacked in `test/bags/test_limits.py`.
"""

from __future__ import annotations

import io
import json
import os
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from safetensors.torch import save_file

from flow3r_ros.cli.main import main
from flow3r_ros.config import load_config
from flow3r_ros.errors import ConfigError, Flow3rError, ModelError, OutputError, printable
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.mappings import MAX_FILE_BYTES
from flow3r_ros.network.catalog import find_model, list_models, read_folder, user_models
from flow3r_ros.network.checkpoint import import_model, read_weights
from flow3r_ros.network.config import load_architecture
from flow3r_ros.paths import OutputFolder
from flow3r_ros.report.page import load_record, write_report
from flow3r_ros.training.checkpointing import write_safetensors
from flow3r_ros.training.folder import one_at_a_time
from flow3r_ros.training.labels.clip_index import read_index
from flow3r_ros.training.labels.clip_store import clip_path
from flow3r_ros.training.shards import ShardError, read_shard, write_shard
from flow3r_ros.training.train_config import load_train_settings
from test.evaluation.factories import make_record
from test.network.factories import tiny_config, tiny_folder, tiny_model
from test.training.clip_factory import scene, write_images

ROOT = Path(__file__).resolve().parents[1]
LIMIT_S = 120.0
"""generous: how long a condition may take to come true on a busy machine"""


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's data folder is the test's own."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    return tmp_path / "data" / "flow3r" / "models"


@pytest.fixture
def flow3r(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """Run a command that must fail with exit code 1 and one line; returns the line."""

    def fails(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["flow3r", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            main()
        error = capsys.readouterr().err
        assert exit_.value.code == 1, error
        assert len(error.splitlines()) == 1, error
        assert error.startswith("flow3r: ")
        return error

    return fails


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def download(folder: Path, name: str = "tiny") -> Path:
    """A weights file with a `config.json` beside it, as it comes from somewhere."""
    folder.mkdir()
    save_file(tiny_model().state_dict(), folder / "model.safetensors")
    tree = {**json.loads(tiny_config().model_dump_json()), "name": name}
    (folder / "config.json").write_text(json.dumps(tree))
    return folder / "model.safetensors"


def victim(folder: Path) -> Path:
    """Somebody's work."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thesis.txt").write_text("years")
    return folder


# --- names ------------------------------------------------------------------------------------

BAD_NAMES = [
    *("", ".", "..", "../x", "../../victim", "a/b", "a/..", "/tmp/x", "~", ".hidden"),
    *("a b", "a\nb", "a\n", "a\x00b", "\x1b[31mred", "ä", "a" * 101, "\udcff", "a\\b"),
]


@pytest.mark.parametrize("name", BAD_NAMES)
@pytest.mark.parametrize("origin", ["config", "option"])
def test_a_name_is_not_a_path(
    tmp_path: Path, home: Path, flow3r: Callable[..., str], name: str, origin: str
) -> None:
    work = victim(home.parent.parent / "victim")
    before = contents(work)
    file = download(tmp_path / "download", name if origin == "config" else "tiny")
    if origin == "config" and "\x00" not in name:
        line = flow3r("models", "import", file, "--replace")
        assert "cannot name a model" in line
    else:
        with pytest.raises(ModelError, match="cannot name a model"):
            import_model(file, name if origin == "option" else None, replace=True)
    assert contents(work) == before
    assert not list(home.rglob("*"))


@pytest.mark.parametrize("name", ["~nobody-of-this-name/x", "x" * 5000, "a\x00b", "..", "/"])
def test_a_name_that_cannot_be_looked_up(name: str) -> None:
    with pytest.raises(ModelError):
        find_model(name)


def test_a_fetched_name_is_not_a_path_either(tmp_path: Path, flow3r: Callable[..., str]) -> None:
    folder = tiny_folder(tmp_path / "elsewhere" / "tiny").path
    (folder / "model.safetensors").unlink()
    assert "cannot name a model" in flow3r("models", "fetch", folder)


# --- what stands there stays ------------------------------------------------------------------


def strangers(tmp_path: Path, target: Path, kind: str) -> Path:
    """Something that is not a model folder of ours, at `target`; returns the folder to watch."""
    if kind == "link":
        work = victim(tmp_path / "victim")
        target.parent.mkdir(parents=True)
        target.symlink_to(work)
        return work
    if kind == "link to ours":
        target.parent.mkdir(parents=True)
        target.symlink_to(tiny_folder(tmp_path / "ours" / "tiny").path)
        return tmp_path / "ours"
    if kind == "file":
        target.parent.mkdir(parents=True)
        target.write_text("years")
        return target.parent
    if kind == "empty":
        target.mkdir(parents=True)
        return target
    if kind == "ours with a guest":
        tiny_folder(target)
        return victim(target)
    work = victim(target)
    if kind == "another manifest":
        (work / "manifest.yaml").write_text("apiVersion: v1\nkind: Pod\n")
    return work


KINDS = [
    *("folder", "empty", "file", "link", "link to ours", "another manifest", "ours with a guest"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_import_replaces_no_stranger(
    tmp_path: Path, home: Path, flow3r: Callable[..., str], kind: str
) -> None:
    work = strangers(tmp_path, home / "tiny", kind)
    before = contents(work)
    file = download(tmp_path / "download")
    for options in ((), ("--replace",)):
        assert "exists already" in flow3r("models", "import", file, *options)
    assert contents(work) == before
    assert [path.name for path in home.iterdir()] == ["tiny"]


def test_import_replaces_ours_only_when_asked(
    tmp_path: Path, home: Path, flow3r: Callable[..., str]
) -> None:
    older = tiny_folder(home / "tiny", evidence=True).manifest.sha256
    file = download(tmp_path / "download")
    assert "--replace" in flow3r("models", "import", file)
    assert read_folder(home / "tiny").manifest.sha256 == older
    assert import_model(file, replace=True).manifest.sha256 != older
    assert [path.name for path in home.iterdir()] == ["tiny"]


@pytest.mark.parametrize("kind", ["folder", "another manifest", "link"])
def test_training_replaces_no_stranger(tmp_path: Path, kind: str) -> None:
    work = strangers(tmp_path, tmp_path / "run" / "model", kind)
    with pytest.raises(OutputError, match="exists already"), one_at_a_time(tmp_path / "run"):
        pytest.fail("it was refused only after the work")
    assert "thesis.txt" in contents(work)


@pytest.mark.parametrize("command", ["run", "replay", "from-video"])
@pytest.mark.parametrize("kind", ["folder", "empty", "file", "link"])
def test_outputs_replace_nothing(
    tmp_path: Path, flow3r: Callable[..., str], command: str, kind: str
) -> None:
    output = tmp_path / "deep" / "out"
    work = strangers(tmp_path, output, kind)
    before = contents(work)
    words = ["bags", command] if command == "from-video" else [command]
    assert "exists already" in flow3r(*words, tmp_path / "absent", "--output", output)
    assert contents(work) == before


@pytest.mark.parametrize("command", ["run", "replay", "from-video"])
def test_two_writers_of_one_output(
    tmp_path: Path, flow3r: Callable[..., str], command: str
) -> None:
    """Refused before the work: the input, which is not there, is not even looked at."""
    words = ["bags", command] if command == "from-video" else [command]
    with OutputFolder(tmp_path / "out"):
        line = flow3r(*words, tmp_path / "absent", "--output", tmp_path / "out")
    assert "being written by another process" in line


@pytest.mark.parametrize("resume", [(), ("--resume",)])
def test_two_trainings_in_one_folder(
    tmp_path: Path, flow3r: Callable[..., str], resume: tuple[str, ...]
) -> None:
    config = ROOT / "config" / "train" / "nano.yaml"
    words = ("train", "--config", config, "--data", tmp_path / "absent", "--output")
    with one_at_a_time(tmp_path / "run"):
        assert "another process is training" in flow3r(*words, tmp_path / "run", *resume)
    assert not list((tmp_path / "run").iterdir())


def test_an_import_beside_an_import(tmp_path: Path, home: Path, flow3r: Callable[..., str]) -> None:
    file = download(tmp_path / "download")
    with OutputFolder(home / "tiny"):
        assert "being written" in flow3r("models", "import", file)


# --- control characters -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", ["\x1b[2Jx", "a\rb", "a\nb", "\x9b31m", "\u202egpj", "\u2028", "\x7f", "\udcff"]
)
def test_control_characters_are_shown_escaped(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    assert printable(shown) == shown
    error = Flow3rError(f"{text}: cannot be read", f"mend {text}")
    assert str(error).isprintable()
    assert shown in str(error)
    str(error).encode()


def test_words_of_every_language_are_shown_as_they_are() -> None:
    assert printable("Küche/カメラ　前/left_optical") == "Küche/カメラ　前/left_optical"


def test_a_licence_cannot_paint_the_terminal(
    home: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tiny_folder(home / "tiny").path
    manifest = (folder / "manifest.yaml").read_text()
    evil = manifest.replace("Apache-2.0", r'"MIT\e[2J\nflow3r: all is well"')
    (folder / "manifest.yaml").write_text(evil)
    for command in (["models", "list"], ["models", "info", "tiny"], ["models", "verify", "tiny"]):
        monkeypatch.setattr(sys, "argv", ["flow3r", *command])
        with pytest.raises(SystemExit):
            main()
        said = capsys.readouterr()
        assert "\x1b" not in said.out + said.err
        assert "\nflow3r: all" not in said.out + said.err


def test_file_names_that_are_no_text(tmp_path: Path, flow3r: Callable[..., str]) -> None:
    strange = os.fsdecode(b"\xff\x1b[31m\n.mp4")
    line = flow3r("run", tmp_path / strange, "--output", tmp_path / "out")
    assert r"\udcff\x1b[31m\n.mp4" in line


# --- how much is read -------------------------------------------------------------------------

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


# --- damaged records --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def record_bytes(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("record") / "record.npz"
    make_record(frames=30).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.7, 0.99])
@pytest.mark.parametrize("damage", ["cut", "zeros", "flipped"])
def test_report_on_a_damaged_record(
    tmp_path: Path, record_bytes: bytes, flow3r: Callable[..., str], share: float, damage: str
) -> None:
    at = int(share * len(record_bytes))
    data = bytearray(record_bytes)
    if damage == "cut":
        del data[at:]
    elif damage == "zeros":
        data[at : at + 2000] = bytes(len(data[at : at + 2000]))
    else:
        data[at : at + 40] = bytes(byte ^ 0xFF for byte in data[at : at + 40])
    (tmp_path / "record.npz").write_bytes(data)
    line = flow3r("report", tmp_path, "--output", tmp_path / "report.html")
    assert "record.npz" in line
    assert not (tmp_path / "report.html").exists()


def rewritten(record: bytes, name: str, change: Callable[[Any], Any]) -> bytes:
    """A record whose array `name` is another; for `meta`, the change is made to the JSON tree."""
    with np.load(io.BytesIO(record)) as stored:
        arrays = {key: stored[key] for key in stored.files}
    if name == "meta":
        tree = json.loads(arrays["meta"].tobytes())
        tree = change(tree) or tree
        arrays["meta"] = np.frombuffer(json.dumps(tree).encode(), np.uint8)
    else:
        arrays[name] = change(arrays[name])
    out = io.BytesIO()
    np.savez_compressed(out, **arrays)
    return out.getvalue()


CHANGES: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "summary is a list": ("meta", lambda tree: {**tree, "summary": [1]}),
    "fps is a word": ("meta", lambda tree: tree["summary"].update(fps="fast")),
    "drops are a list": ("meta", lambda tree: tree["summary"].update(frames_dropped=[1])),
    "title is missing": ("meta", lambda tree: tree.pop("title") and None),
    "columns are others": ("meta", lambda tree: tree["columns"].reverse()),
    "every is zero": ("meta", lambda tree: tree.update(every=0)),
    "pictures that are not there": ("meta", lambda tree: tree["thumbnails"].append([1, 2])),
    "a stage that is not there": ("meta", lambda tree: tree["stages"].append("x")),
    "stamps of half the run": ("stamps", lambda array: array[::2]),
    "stamps are words": ("stamps", lambda array: array.astype(str)),
    "stamps are a number": ("stamps", lambda array: np.int64(3)),
    "poses not finite": ("poses", lambda array: array * np.nan),
    "poses of zeros": ("poses", lambda array: array * 0),
    "unknown states": ("rows", lambda array: array * 0 + 1e9),
    "rows of another length": ("rows", lambda array: array[:-1]),
    "a picture of another size": ("depth0", lambda array: array[:5]),
    "a picture with one dimension": ("depth0", lambda array: array[0]),
    "a reference out of order": ("reference_stamps", lambda array: array[::-1]),
    "a reference of other poses": ("reference_poses", lambda array: array[:, :3]),
}


@pytest.mark.parametrize("kind", CHANGES)
def test_report_on_a_record_of_another_mind(
    tmp_path: Path, record_bytes: bytes, flow3r: Callable[..., str], kind: str
) -> None:
    (tmp_path / "record.npz").write_bytes(rewritten(record_bytes, *CHANGES[kind]))
    assert "record.npz" in flow3r("report", tmp_path, "--output", tmp_path / "report.html")


def test_a_record_that_unpacks_to_too_much(
    tmp_path: Path, flow3r: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flow3r_ros.report.record.MAX_RECORD_BYTES", 8 << 20)
    with (
        zipfile.ZipFile(tmp_path / "record.npz", "w", zipfile.ZIP_DEFLATED) as packed,
        packed.open("meta.npy", "w", force_zip64=True) as file,
    ):
        for _ in range(9):
            file.write(bytes(1 << 20))
    assert "unpacks to" in flow3r("report", tmp_path, "--output", tmp_path / "report.html")


def test_a_record_with_markup_stays_text(tmp_path: Path, record_bytes: bytes) -> None:
    script = "<script>alert(1)</script>"

    def paint(tree: dict[str, Any]) -> None:
        tree["title"] = script
        tree["stages"] = [script for _ in tree["stages"]]
        for key in ("model", "device", "weights_license", "scale_state"):
            tree["summary"][key] = script
        for key in ("frames_dropped", "tracking_states", "pose_sources"):
            tree["summary"][key] = {script: 3}

    (tmp_path / "record.npz").write_bytes(rewritten(record_bytes, "meta", paint))
    page = write_report(tmp_path / "report.html", load_record(tmp_path)).read_text()
    assert script not in page


# --- killed processes -------------------------------------------------------------------------


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def started(tmp_path: Path, code: str, *arguments: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that runs `code`, and the line it prints when it is ready."""
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


LABEL = """
import sys, time
from pathlib import Path
import psutil
from flow3r_ros.training.labels.cache import LabelSettings
from flow3r_ros.training.labels.labelling import label

def tell(report):
    print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
    time.sleep(600)

if __name__ == "__main__":
    settings = LabelSettings(clips={"width": 168, "frames": 6}, width=84, pairs_per_shard=2)
    label([Path(sys.argv[1])], Path(sys.argv[2]), settings, workers=2, progress=tell)
"""


def is_gone(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_label_workers_end_with_their_parent(tmp_path: Path, number: signal.Signals) -> None:
    images = write_images(tmp_path / "images", scene(frames=8), repeats=1)
    process, line = started(tmp_path, LABEL, images, tmp_path / "cache")
    workers = [int(pid) for pid in line.split()]
    try:
        assert len(workers) >= 2
        process.send_signal(number)
        process.wait()
        wait_until(lambda: all(map(is_gone, workers)), f"workers {workers} live on")
    finally:
        process.kill()
        process.communicate()
        for pid in workers:
            if not is_gone(pid):
                os.kill(pid, signal.SIGKILL)


IMPORT = """
import sys, time
from pathlib import Path
from flow3r_ros.network import checkpoint

def hang(folder, *rest):
    (folder / "model.safetensors").write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)

checkpoint._fill = hang
checkpoint.import_model(Path(sys.argv[1]), replace=True)
"""


@pytest.mark.parametrize("ours", [False, True])
def test_leftovers_of_a_killed_import_go_with_the_next(
    tmp_path: Path, home: Path, ours: bool
) -> None:
    file = download(tmp_path / "download")
    if ours:
        tiny_folder(home / "tiny")
    process, line = started(tmp_path, IMPORT, file)
    assert line == "ready"
    process.kill()
    process.communicate()
    assert [path for path in home.iterdir() if path.name.startswith(".")], "nothing was left"
    assert [folder.path.name for folder in list_models() if folder.path.parent == home] == (
        ["tiny"] if ours else []
    )
    import_model(file, "another")
    assert sorted(path.name for path in home.iterdir()) == (
        ["another", "tiny"] if ours else ["another"]
    )


SAVE = """
import sys, time
from collections import Counter
from pathlib import Path
import numpy as np
from flow3r_ros.config import Config
from flow3r_ros.ros import saving
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.worker import Tally

def save(folder):
    config = Config()
    config.node.save_dir = str(folder)
    points = np.zeros((3, 3), np.float32), np.zeros((3, 3), np.uint8), np.ones(3, np.float32)
    loaded = Loaded(None, "m", "0" * 64, "none", "cpu", lambda: 0.0, lambda: None)
    return saving.save_map(config, points, saving.Trail(), loaded, Tally())

def hang(path, *points):
    path.write_bytes(b"half")
    print("ready", flush=True)
    time.sleep(600)

if __name__ == "__main__":
    if len(sys.argv) > 2:
        saving.write_ply = hang
    print(save(Path(sys.argv[1])))
"""


def test_leftovers_of_a_killed_save_map_go_with_the_next(tmp_path: Path) -> None:
    pytest.importorskip("rclpy")
    maps = tmp_path / "maps"
    process, line = started(tmp_path, SAVE, maps, Path("hang"))
    assert line == "ready"
    process.kill()
    process.communicate()
    assert list(maps.iterdir())
    process, line = started(tmp_path, SAVE, maps)
    process.communicate()
    assert [str(path) for path in maps.iterdir()] == [line]
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in Path(line).iterdir()}
    assert set(modes.values()) == {oct(0o666 & ~umask())}
    assert Path(line).stat().st_mode & 0o777 == 0o777 & ~umask()


# --- who may read -----------------------------------------------------------------------------


def umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def test_others_may_read_what_we_write(tmp_path: Path) -> None:
    imported = import_model(download(tmp_path / "download")).path
    write_shard(tmp_path / "a.shard", {"x": np.zeros(3)}, {})
    write_safetensors(tmp_path / "step.safetensors", {"x": torch.zeros(3)})
    assert imported.stat().st_mode & 0o777 == 0o777 & ~umask()
    for path in (*imported.iterdir(), *tmp_path.glob("*.s*")):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask(), path
    assert read_weights(imported / "model.safetensors")


# --- pictures that unpack to gigabytes --------------------------------------------------------

PICTURES = """
import resource, struct, sys, zlib
from pathlib import Path
import cv2, numpy as np
from flow3r_ros.bags.types import make
from flow3r_ros.bags.writer import BagWriter
from flow3r_ros.config import NodeSettings
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import FrameError
from flow3r_ros.ros.framing import Framing
from flow3r_ros.wire.transforms import header_of

def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

side = 32000
packer = zlib.compressobj(9)
rows = b"".join(packer.compress(bytes(side // 8 + 1)) for _ in range(side)) + packer.flush()
shape = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
bomb = b"\\x89PNG\\r\\n\\x1a\\n" + chunk(b"IHDR", shape) + chunk(b"IDAT", rows)
bomb += chunk(b"IEND", b"")
assert len(bomb) < 1_000_000
good = cv2.imencode(".png", np.full((48, 64, 3), 80, np.uint8))[1].tobytes()
folder, way = Path(sys.argv[1]), sys.argv[2]
(folder / "pictures").mkdir()

def compressed(index, ns):
    data = np.frombuffer(bomb if index == 2 else good, np.uint8)
    header = header_of(make, ns, "cam")
    return make("sensor_msgs/msg/CompressedImage", header=header, format="png", data=data)

start = 1_700_000_000_000_000_000
if way == "folder":
    for index in range(5):
        (folder / "pictures" / f"{index}.png").write_bytes(bomb if index == 2 else good)
if way == "bag":
    with BagWriter(folder / "bag") as writer:
        writer.add("/image/compressed", "sensor_msgs/msg/CompressedImage")
        for index in range(5):
            ns = start + index * 10**8
            writer.write("/image/compressed", ns, compressed(index, ns))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
reasons, frames = [], 0
if way == "live":
    said = lambda key, text: None
    framing = Framing(NodeSettings(), "/image", lambda: False, said, said)
    for index in range(5):
        try:
            framing.frame(compressed(index, start + index * 10**8), index, index / 10, start)
        except FrameError as error:
            reasons += [error.reason] * (error.reason != "waiting_for_camera_info")
    frames = 5 - len(reasons)
else:
    with open_source(folder / ("pictures" if way == "folder" else "bag")) as source:
        frames = len(list(source))
        reasons = list(source.drops.elements())
grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024
print(frames, *reasons, grown)
"""


@pytest.mark.parametrize("way", ["folder", "bag", "live"])
def test_a_picture_of_32000_by_32000_is_one_drop_and_costs_nothing(
    tmp_path: Path, way: str
) -> None:
    process, line = started(tmp_path, PICTURES, tmp_path, Path(way))
    process.communicate()
    frames, reason, grown = line.split()
    assert (int(frames), reason) == (4, "too_large")
    assert int(grown) < 400, "megabytes"
