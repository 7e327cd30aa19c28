"""Records that are damaged, or of another mind."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from flow3r_ros.report.page import load_record, write_report
from test.evaluation.factories import make_record


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
