"""The label cache: made once, found again, repaired where damaged, shared by runs beside each
other, never half-written."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import InputError, OutputError, TrainingError
from flow3r_ros.geometry.flow import resize_flow
from flow3r_ros.training import shards
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings, LabelUnit, encode_labels
from flow3r_ros.training.labels.clip_store import ClipSettings, read_clip
from flow3r_ros.training.labels.clips import FlowLabel
from flow3r_ros.training.labels.labelling import label
from flow3r_ros.training.labels.teachers import DisTeacher
from flow3r_ros.training.labels.worker import label_unit
from flow3r_ros.training.shards import read_shard, unpack_shard
from test.training.clip_factory import scene, write_images


def settings(**changes) -> LabelSettings:
    base = {
        "clips": {"width": 168, "frames": 6},
        "width": 84,
        "teacher_options": {"width": 168},
        "strides": (1, 2),
        "pairs_per_shard": 4,
    }
    return LabelSettings.model_validate({**base, **changes})


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("source") / "images", scene(frames=8), repeats=2)


def files_of(folder: Path) -> dict[str, int]:
    return {
        str(path): path.stat().st_mtime_ns for path in sorted(folder.rglob("*")) if path.is_file()
    }


def all_units(folder: Path) -> list[tuple[LabelCache, LabelUnit]]:
    cache = LabelCache.existing(folder)
    manifests = [json.loads(path.read_text()) for path in (folder / "sources").glob("*.json")]
    return [
        (cache, unit)
        for index in manifests
        for key, n in index["clips"].items()
        for unit in cache.units(key, n)
    ]


def test_labels_are_right_and_repeats_are_dropped(images: Path, tmp_path: Path) -> None:
    report = label([images], tmp_path / "cache", settings())
    assert report.frames["repeated"] == 8
    assert report.frames["chosen"] == 8
    assert report.clips == 2
    assert report.labelled == report.pairs == 2 * (5 + 4) + 2 * 1
    made = scene(frames=8)
    cache, unit = all_units(tmp_path / "cache")[0]
    clip = read_clip(cache.clip_path(unit))
    for (i, j), found in cache.load(unit).items():
        a, b = (int(clip.stamps_ns[k] - clip.stamps_ns[0]) for k in (i, j))
        step = int(clip.stamps_ns[1] - clip.stamps_ns[0])
        truth, covisible = made.flow(a // step, b // step)
        wrong = np.linalg.norm(resize_flow(found.displacement, 168, 126) - truth, axis=-1)
        seen = covisible & (cv2.resize(found.confidence, (168, 126)) > 0.3)
        assert np.median(wrong[seen]) < 1.0
        assert found.covisibility.shape == (63, 84)


def test_a_second_run_does_nothing(images: Path, tmp_path: Path) -> None:
    first = label([images], tmp_path / "cache", settings())
    before = files_of(tmp_path / "cache")
    second = label([images], tmp_path / "cache", settings())
    assert files_of(tmp_path / "cache") == before
    assert (second.labelled, second.reused) == (0, first.labelled)
    assert second.refused == first.refused


def test_the_same_bytes_elsewhere_are_the_same_labels(images: Path, tmp_path: Path) -> None:
    label([images], tmp_path / "cache", settings())
    copy = write_images(tmp_path / "copy", scene(frames=8), repeats=2)
    assert label([copy], tmp_path / "cache", settings()).labelled == 0


@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_shard_is_made_anew(images: Path, tmp_path: Path, damage: str) -> None:
    label([images], tmp_path / "cache", settings())
    cache, unit = all_units(tmp_path / "cache")[1]
    path = cache.path(unit)
    good = path.read_bytes()
    middle = len(good) // 2
    path.write_bytes(
        {
            "flip": good[:middle] + bytes([good[middle] ^ 1]) + good[middle + 1 :],
            "truncate": good[:middle],
            "empty": b"",
        }[damage]
    )
    with pytest.raises(shards.ShardError):
        cache.load(unit)
    report = label([images], tmp_path / "cache", settings())
    assert (report.relabelled, report.labelled) == (len(unit.pairs), len(unit.pairs))
    assert path.read_bytes() == good


@pytest.mark.parametrize("labels_too", [False, True])
def test_a_damaged_clip_is_cut_anew(images: Path, tmp_path: Path, labels_too: bool) -> None:
    label([images], tmp_path / "cache", settings())
    cache, unit = all_units(tmp_path / "cache")[0]
    cache.clip_path(unit).write_bytes(b"rubbish")
    if labels_too:
        cache.path(unit).unlink()
    assert label([images], tmp_path / "cache", settings()).labelled == (
        len(unit.pairs) if labels_too else 0
    )
    assert len(read_clip(cache.clip_path(unit))) == 6


def test_a_cache_of_other_settings_is_refused_naming_them(images: Path, tmp_path: Path) -> None:
    label([images], tmp_path / "cache", settings())
    with pytest.raises(TrainingError, match=r"teacher_options\.width: cache 168, asked 224"):
        label([images], tmp_path / "cache", settings(teacher_options={"width": 224}))
    with pytest.raises(TrainingError, match=r"strides"):
        label([images], tmp_path / "cache", settings(strides=(1,)))
    with pytest.raises(TrainingError, match="not a label cache"):
        LabelCache.existing(tmp_path)


def test_the_same_weights_elsewhere_are_the_same_cache(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hash of the weights, not their path, and not the device, decides."""
    plugin = tmp_path / "plugin"
    (plugin / "weighty-1.dist-info").mkdir(parents=True)
    (plugin / "weighty-1.dist-info" / "METADATA").write_text("Name: weighty\nVersion: 1\n")
    (plugin / "weighty-1.dist-info" / "entry_points.txt").write_text(
        "[flow3r_ros.flow_teachers]\nweighty = test.training.labels.test_labelling:Weighty\n"
    )
    monkeypatch.syspath_prepend(str(plugin))
    files = [tmp_path / name for name in ("a.pt", "b.pt", "other.pt")]
    for file, data in zip(files, (b"w", b"w", b"other"), strict=True):
        file.write_bytes(data)

    def run(weights: Path, device: str) -> tuple[int, int]:
        options = {"weights": str(weights), "device": device}
        made = settings(teacher="weighty", teacher_options=options)
        report = label([images], tmp_path / "cache", made)
        return report.labelled, report.reused

    labelled, _ = run(files[0], "cpu")
    before = files_of(tmp_path / "cache")
    assert run(files[1], "cuda") == (0, labelled)
    assert files_of(tmp_path / "cache") == before
    with pytest.raises(TrainingError, match=r"teacher_identity\.sha256: cache"):
        run(files[2], "cpu")


class Weighty(DisTeacher):
    """A teacher with weights, of which it makes no use."""

    def __init__(self, weights: str, device: str) -> None:
        super().__init__(width=168)
        self._sha = hashlib.sha256(Path(weights).read_bytes()).hexdigest()

    @property
    def identity(self) -> dict[str, str]:
        return {"name": "weighty", "sha256": self._sha}


def test_others_may_read_what_the_umask_lets_them(images: Path, tmp_path: Path) -> None:
    for umask, mode in ((0o022, 0o644), (0o077, 0o600)):
        before = os.umask(umask)
        try:
            label([images], tmp_path / oct(umask), settings())
        finally:
            os.umask(before)
        files = [path for path in (tmp_path / oct(umask)).rglob("*") if path.is_file()]
        assert {path.stat().st_mode & 0o777 for path in files} == {mode}


def test_a_full_disk_is_said_and_finished_shards_stay(
    images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, written = os.fsync, []

    def fill(handle: int) -> None:
        written.append(handle)
        if len(written) == 8:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", fill)
    with pytest.raises(OutputError, match="disk is full"):
        label([images], tmp_path / "cache", settings())
    monkeypatch.undo()
    assert not list((tmp_path / "cache").rglob("*.part"))
    kept = len(list((tmp_path / "cache" / "labels").rglob("*.shard")))
    assert kept > 0
    report = label([images], tmp_path / "cache", settings())
    assert report.reused > 0
    assert report.reused + report.labelled == report.pairs


def test_a_source_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError):
        label([tmp_path / "nothing"], tmp_path / "cache", settings())


def test_int8_labels_are_close_to_the_flow() -> None:
    flow = np.random.default_rng(0).normal(0, 20, (63, 84, 2)).astype(np.float32)
    ones = np.ones((63, 84), np.float32)
    stored = {}
    for encoding in ("float16", "int8"):
        data = encode_labels(
            ((0, 1), (1, 0)),
            [FlowLabel(flow, ones, ones), FlowLabel(flow, ones, ones, "blur")],
            settings(encoding=encoding),
        )
        arrays, metadata = unpack_shard(data, "memory")
        assert metadata["reasons"] == ["", "blur"]
        assert arrays["flow"].shape == (1, 63, 84, 2)
        scale = arrays["scale"][:, None, None, None] if "scale" in arrays else 1.0
        stored[encoding] = np.abs(arrays["flow"].astype(np.float32) * scale - flow).max()
    assert stored["float16"] < 0.05
    assert stored["int8"] <= np.abs(flow).max() / 254 + 1e-3


def run_label(images: Path, cache: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys; from pathlib import Path; from "
        "test.training.labels.test_labelling import settings;"
        "from flow3r_ros.training.labels.labelling import label; r = "
        "label([Path(sys.argv[1])], Path(sys.argv[2]), settings(pairs_per_shard=1));"
        "print(r.labelled, r.reused, r.pairs)"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, str(images), str(cache)],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )


def test_runs_beside_each_other_share_the_work_and_a_killed_one_is_continued(
    images: Path, tmp_path: Path
) -> None:
    cache = tmp_path / "cache"
    killed = run_label(images, cache)
    deadline = time.monotonic() + 240
    while len(list(cache.glob("labels/*/*.shard"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    runs = [run_label(images, cache) for _ in range(2)]
    counts = [[int(word) for word in run.communicate(timeout=280)[0].split()] for run in runs]
    pairs = counts[0][2]
    assert sum(labelled for labelled, _, _ in counts) <= pairs - 3
    assert all(labelled + reused == pairs for labelled, reused, _ in counts)
    assert all(unit_cache.state(unit) == "done" for unit_cache, unit in all_units(cache))


def test_local_workers_give_the_same_shards(images: Path, tmp_path: Path) -> None:
    one = label([images], tmp_path / "one", settings())
    two = label([images], tmp_path / "two", settings(), workers=2)
    assert (one.labelled, one.refused) == (two.labelled, two.refused)
    for (cache_a, a), (cache_b, b) in zip(
        all_units(tmp_path / "one"), all_units(tmp_path / "two"), strict=True
    ):
        assert cache_a.path(a).read_bytes() == cache_b.path(b).read_bytes()


def test_labelling_is_pure(images: Path, tmp_path: Path) -> None:
    label([images], tmp_path / "cache", settings())
    cache, unit = all_units(tmp_path / "cache")[0]
    again = label_unit(
        cache.clip_path(unit).read_bytes(), unit.pairs, cache.settings.model_dump_json()
    )
    assert again == cache.path(unit).read_bytes()
    assert read_shard(cache.path(unit))[0]["flow"].dtype == np.float16


def test_a_camera_that_does_not_move_gives_no_clips(tmp_path: Path) -> None:
    still = write_images(tmp_path / "still", scene(frames=1), repeats=5)
    report = label(
        [still], tmp_path / "cache", settings(clips=ClipSettings(width=168).model_dump())
    )
    assert (report.clips, report.pairs) == (0, 0)
    assert report.frames == {"frames": 5, "chosen": 1, "repeated": 4, "alone": 1}


def test_several_sources_go_on_past_a_bad_one(images: Path, tmp_path: Path) -> None:
    bad = tmp_path / "notes.txt"
    bad.write_text("it rained")
    report = label([bad, images], tmp_path / "cache", settings())
    assert list(report.failed) == [str(bad)]
    assert "is a text file" in report.failed[str(bad)]
    assert report.labelled == report.pairs > 0


def test_nothing_to_label_leaves_nothing(tmp_path: Path) -> None:
    bad = [tmp_path / "a.txt", tmp_path / "b.txt"]
    for path in bad:
        path.write_text("it rained")
    assert len(label(bad, tmp_path / "cache", settings()).failed) == 2
    with pytest.raises(InputError, match="is a text file"):
        label(bad[:1], tmp_path / "cache", settings())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.txt", "b.txt"]
