"""Label, train and resume with everything in object storage, against a real S3 server; the server
killed in the middle; an object that is only half there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import yaml

from flow3r_ros.errors import OutputError, StorageError
from flow3r_ros.storage import RemotePath, write
from flow3r_ros.training.clip_sources import CachedClips
from flow3r_ros.training.labels.cache import LabelCache
from flow3r_ros.training.labels.labelling import LabelReport, label
from flow3r_ros.training.loop import train
from flow3r_ros.training.scenes import shards as scene_shards
from flow3r_ros.training.scenes.shards import SceneShards, training_clip, write_shards
from flow3r_ros.training.train_config import TrainSettings
from test.cases.workshop import flow3r
from test.object_store import ObjectStore, object_store
from test.training.clip_factory import scene, write_images
from test.training.labels.test_labelling import all_units, settings

pytest.importorskip("s3fs", reason="the fleet extra (s3fs) is not installed")
LABELS = settings(pairs_per_shard=2, clips={"width": 168, "frames": 4})


@pytest.fixture(scope="module")
def server() -> Iterator[ObjectStore]:
    with object_store() as running:
        running.make_bucket("fleet")
        yield running


@pytest.fixture(scope="module")
def recording(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_images(tmp_path_factory.mktemp("recordings") / "walk", scene(frames=12))


def upload(folder: Path, remote: RemotePath) -> RemotePath:
    for file in sorted(folder.rglob("*")):
        if file.is_file():
            (remote / str(file.relative_to(folder))).upload(file)
    return remote


@pytest.fixture(scope="module")
def cache(server: ObjectStore, recording: Path) -> RemotePath:
    """A label cache in storage, of a recording in storage."""
    stored = upload(recording, RemotePath("s3://fleet/recordings/walk"))
    folder = RemotePath("s3://fleet/labels")
    report = label([stored], folder, LABELS)
    assert report.labelled == report.pairs > 20
    return folder


def test_labels_are_the_same_there_and_here_and_made_once(
    cache: RemotePath, recording: Path, tmp_path: Path
) -> None:
    here = label([recording], tmp_path / "cache", LABELS)
    units = zip(all_units(cache), all_units(tmp_path / "cache"), strict=True)
    for (there_cache, a), (here_cache, b) in units:
        assert there_cache.path(a).read_bytes() == here_cache.path(b).read_bytes()
    before = cache.listing()
    again = label([RemotePath("s3://fleet/recordings/walk")], cache, LABELS, workers=2)
    assert (again.labelled, again.reused, again.refused) == (0, here.labelled, here.refused)
    assert cache.listing() == before


@pytest.mark.parametrize("left", ["half", "nothing"])
def test_a_half_written_object_is_found_and_labelled_again(cache: RemotePath, left: str) -> None:
    store, unit = all_units(cache)[2]
    path = store.path(unit)
    whole = path.read_bytes()
    write(path, whole[: len(whole) // 2]) if left == "half" else path.unlink()
    report = label([RemotePath("s3://fleet/recordings/walk")], cache, LABELS)
    assert report.labelled == len(unit.pairs)
    assert report.relabelled == (len(unit.pairs) if left == "half" else 0)
    assert path.read_bytes() == whole


def test_a_second_run_reads_headers_alone(cache: RemotePath, monkeypatch) -> None:
    read: list[str] = []
    real = RemotePath.read_bytes

    def watch(path: RemotePath) -> bytes:
        read.append(path.url)
        return real(path)

    monkeypatch.setattr(RemotePath, "read_bytes", watch)
    report = label([RemotePath("s3://fleet/recordings/walk")], cache, LABELS)
    assert report.reused == report.pairs
    assert not [url for url in read if url.endswith(".shard") or "recordings" in url]


def test_a_flipped_bit_is_found_when_it_is_read(cache: RemotePath) -> None:
    """A glance sees sizes; the hash is checked before anything is learnt or labelled from it."""
    store, unit = all_units(cache)[0]
    shard, clip = store.path(unit), store.clip_path(unit)
    whole, pictures = shard.read_bytes(), clip.read_bytes()
    write(shard, whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:])
    clips = CachedClips(cache)
    for index in range(len(clips.lengths)):
        clips.read(index, [0, 1], np.random.default_rng(0), 2)
    assert clips.counts["relabelled"] == 1
    assert shard.read_bytes() == whole
    shard.unlink()
    write(clip, pictures[:-40] + bytes([pictures[-40] ^ 1]) + pictures[-39:])
    again = label([RemotePath("s3://fleet/recordings/walk")], cache, LABELS)
    assert again.labelled == len(unit.pairs)
    assert (shard.read_bytes(), clip.read_bytes()) == (whole, pictures)


def test_a_half_written_clip_is_cut_again(cache: RemotePath) -> None:
    store, unit = all_units(cache)[0]
    clip = store.clip_path(unit)
    whole = clip.read_bytes()
    write(clip, whole[:100])
    assert label([RemotePath("s3://fleet/recordings/walk")], cache, LABELS).labelled == 0
    assert clip.read_bytes() == whole


def test_a_lost_connection_is_said_with_what_is_kept(recording: Path) -> None:
    with object_store() as server:
        server.make_bucket("fleet")

        def kill(report: LabelReport) -> None:
            server.kill()

        with pytest.raises(
            StorageError, match=r"connection was lost 3 times; .*\(10 pairs of this"
        ):
            label([recording], RemotePath("s3://fleet/labels"), LABELS, progress=kill)


@pytest.fixture(scope="module")
def config(tmp_path_factory, tiny_settings: Callable[..., TrainSettings]) -> Path:
    made = tiny_settings(
        steps=4, checkpoint_every=2, validation_clips=1, clips_per_step=2, threads=1,
        data={"frames": [2, 2], "grids": [[56, 42]], "labels": LABELS.model_dump()},
    )  # fmt: skip
    file = tmp_path_factory.mktemp("config") / "train.yaml"
    file.write_text(yaml.safe_dump(made.model_dump(mode="json")))
    return file


def rows(text: str) -> list[list[str]]:
    """Step, loss and terms; the last two columns are times."""
    return [line.split(",")[:-2] for line in text.splitlines()]


def test_training_from_storage_into_storage_resumes_exactly(
    cache: RemotePath, config: Path, tmp_path: Path
) -> None:
    straight = train(config, [cache], tmp_path / "straight")
    output = RemotePath("s3://fleet/runs/one")
    train(config, [cache], output, max_steps=2)
    with pytest.raises(OutputError, match="already holds a training run; resume it"):
        train(config, [cache], output)
    resumed = train(config, [cache], output, resume=True)
    assert resumed.model == output / "model"
    assert rows((output / "metrics.csv").read_text()) == rows(
        (tmp_path / "straight" / "metrics.csv").read_text()
    )
    weights = "model/model.safetensors"
    assert (output / weights).read_bytes() == (tmp_path / "straight" / weights).read_bytes()
    manifest = yaml.safe_load((output / "model" / "manifest.yaml").read_text())
    assert manifest["recordings"][0]["name"] == "walk"
    assert straight.metrics == resumed.metrics
    steps = sorted(path.name for path in (output / "checkpoints").glob("step_*"))
    assert steps == ["step_000002.safetensors", "step_000004.safetensors"]


@pytest.mark.thorough
def test_a_connection_lost_in_training_keeps_the_run_here(
    config: Path, cache: RemotePath, recording: Path, tmp_path: Path, monkeypatch
) -> None:
    here = tmp_path / "cache"
    label([recording], here, LABELS)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with object_store() as server:
        server.make_bucket("fleet")
        saved = RemotePath.upload

        def kill_first(path: RemotePath, file: Path) -> None:
            server.kill()
            saved(path, file)

        with monkeypatch.context() as patch:
            patch.setattr(RemotePath, "upload", kill_first)
            with pytest.raises(StorageError, match="the run is kept in /") as lost:
                train(config, [here], RemotePath("s3://fleet/run"))
    kept = Path(lost.value.cure.split(" in ")[1].split(":")[0])
    assert train(config, [here], kept, resume=True).steps == 4


def test_scene_shards_are_read_row_by_row(server: ObjectStore, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(scene_shards, "_CLIPS_PER_SHARD", 2)
    monkeypatch.setattr(scene_shards, "training_clip", partial(training_clip, frames=2))
    monkeypatch.setitem(scene_shards.GRIDS, "small", ((56, 42),))
    list(write_shards(tmp_path, 0, 1, "photographs", sizes=("small",)))
    there = upload(tmp_path / "small", RemotePath("s3://fleet/scenes"))
    here = SceneShards([tmp_path / "small"], 1, 1).batch(0)
    for ours, theirs in zip(here, SceneShards([there], 1, 1).batch(0), strict=True):
        assert (ours.rgb == theirs.rgb).all()
        assert (ours.flow == theirs.flow).all()
        assert ours.camera == theirs.camera


def test_clips_are_read_without_a_local_copy(cache: RemotePath) -> None:
    clips = CachedClips(cache)
    example = clips.read(0, [0, 1], np.random.default_rng(0), 2)
    assert len(example.clip) == 2
    assert LabelCache.existing(cache).settings == LABELS


def test_the_command_line_takes_addresses(
    cache: RemotePath, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wrong = flow3r("label", "s3://nobody/walk", "--output", "s3://fleet/other")
    assert wrong.code == 1
    assert "there is no bucket nobody" in wrong.err
    assert len(wrong.err.splitlines()) == 1
    missing = flow3r("run", "s3://fleet/nothing.mp4", "--output", "out")
    assert missing.code == 1
    assert "s3://fleet/nothing.mp4: no such file or folder" in missing.err
    assert not list(tmp_path.iterdir())
