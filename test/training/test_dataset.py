"""Mixtures: the order is a function of (seed, number), weights hold, bad clips are skipped and
counted, memory stays bounded."""

from __future__ import annotations

import json
import resource
from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.augmentation import Example
from flow3r_ros.training.clip_sources import CachedClips
from flow3r_ros.training.dataset import Mixture, epoch_order
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings
from flow3r_ros.training.labels.clip_store import clip_path, write_clip
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.labels.teachers import DisTeacher
from flow3r_ros.training.loader import Loader
from flow3r_ros.training.sample import Sample, collate
from flow3r_ros.training.shards import ShardError, content_key
from test.training.clip_factory import clip_of, scene

GRID = (56, 42)


class ColouredClips:
    """Unlabelled clips of one colour, 8 frames each; clip 3 is damaged, clip 4 has no labels."""

    def __init__(
        self, name: str, colour: int, clips: int = 6, length: int = 8, flawed: bool = False
    ) -> None:
        self.name, self.colour, self.flawed = name, colour, flawed
        self.lengths = np.full(clips, length, np.int64)

    def strides(self) -> tuple[int, ...]:
        return (1, 2)

    def read(self, index, frames, rng, pairs) -> Example:
        if self.flawed and index == 3:
            raise ShardError("clip 3: damaged")
        made = np.full((len(frames), 42, 56, 3), self.colour, np.uint8)
        made[:, :, :, 1] = np.array(frames)[:, None, None] * 10
        made[:, :, :, 2] = index
        camera = clip_of(scene(frames=2, width=56, height=42)).camera
        clip = Clip(str(index), self.name, made, np.array(frames, np.int64), camera)
        ones = np.ones((21, 28), np.float32)
        labels = (
            ()
            if self.flawed and index == 4
            else (FlowLabel(np.ones((21, 28, 2), np.float32), ones, ones),)
        )
        return Example(clip, ((0, 1),) * len(labels), labels)


def mixture(**changes) -> Mixture:
    sources = [ColouredClips("red", 200), ColouredClips("blue", 20)]
    return Mixture(
        sources, **{"weights": (1, 3), "grids": (GRID,), "frames": (2, 5), "pairs": 2, **changes}
    )


def same(a: Sample, b: Sample) -> bool:
    return all(
        np.array_equal(getattr(a, name), getattr(b, name))
        for name in ("rgb", "pairs", "flow", "covisibility")
    )


def test_a_step_is_a_pure_function_of_seed_and_step() -> None:
    steps = [7, 0, 3]
    first = {step: mixture().batch(step, 3) for step in steps}
    again = mixture()
    for step in sorted(steps):
        assert all(same(a, b) for a, b in zip(first[step], again.batch(step, 3), strict=True))
    other = mixture(seed=43)
    assert not all(
        same(a, b)
        for step in steps
        for a, b in zip(first[step], other.batch(step, 3), strict=False)
    )


def test_samples_of_a_step_fit_into_one_batch_and_numbers_of_frames_vary() -> None:
    made = mixture()
    frames = set()
    for step in range(12):
        batch = collate(made.batch(step, 3))
        frames.add(batch.images.shape[1])
        assert batch.images.shape[0] == 3
        assert batch.flow.shape[1] == 2
    assert frames == {2, 3, 4, 5}


def test_weights_hold_and_each_clip_is_used_evenly() -> None:
    source_of, index_of = epoch_order(1, 0, (1000, 200), (0.25, 0.75))
    assert np.mean(source_of == 1) == pytest.approx(0.75, abs=0.04)
    used = np.bincount(index_of[source_of == 1], minlength=200)
    assert used.max() - used.min() <= 1
    assert not np.array_equal(index_of, epoch_order(1, 1, (1000, 200), (0.25, 0.75))[1])


def test_damaged_and_unlabelled_clips_are_counted_and_passed_over() -> None:
    made = Mixture([ColouredClips("red", 200, flawed=True)], grids=(GRID,), frames=(2, 2), pairs=1)
    samples = [sample for step in range(12) for sample in made.batch(step, 1)]
    assert {int(sample.rgb[0, 0, 0, 2]) for sample in samples} == {0, 1, 2, 5}
    assert set(made.skipped) == {"damaged", "no_labels"}


def test_clips_that_are_too_short_are_no_failed_attempts() -> None:
    short = ColouredClips("red", 200, clips=60, length=2)
    short.lengths[7] = 8
    made = Mixture([short], grids=(GRID,), frames=(4, 4), pairs=1)
    assert {int(made.batch(step, 1)[0].rgb[0, 0, 0, 2]) for step in range(5)} == {7}


def test_missing_pairs_weigh_nothing() -> None:
    sample = mixture(augment=False).batch(0, 1)[0]
    assert sample.pairs.shape == (2, 2)
    assert sorted(float(plane.max()) for plane in sample.covisibility)[0] == 0.0


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"frames": (1, 4)}, "2..24"),
        ({"frames": (2, 30)}, "2..24"),
        ({"weights": (1,)}, "weights"),
        ({"weights": (0, 0)}, "weights"),
        ({"frames": (9, 12)}, "longest clip"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, match) -> None:
    with pytest.raises(TrainingError, match=match):
        mixture(**changes)


def test_the_loader_gives_what_the_mixture_gives_whatever_the_threads() -> None:
    expected = [mixture().batch(step, 2) for step in range(4, 9)]
    made = mixture()
    with Loader(lambda step: made.batch(step, 2), threads=3) as loader:
        for step, samples in enumerate(expected, start=4):
            assert all(same(a, b) for a, b in zip(samples, loader(step), strict=True))


def test_the_loader_shows_errors_of_the_data() -> None:
    made = Mixture([ColouredClips("red", 200, clips=1, flawed=False)], grids=(GRID,), frames=(2, 2))
    made.sources[0].read = lambda *_: (_ for _ in ()).throw(ShardError("gone"))  # type: ignore[method-assign]
    with (
        Loader(lambda step: made.batch(step, 1)) as loader,
        pytest.raises(TrainingError, match="in a row"),
    ):
        loader(0)


def make_cache(folder: Path, clips: int = 2) -> LabelCache:
    settings = LabelSettings.model_validate(
        {"teacher_options": {"width": 168}, "width": 84, "strides": (1,)}
    )
    cache = LabelCache(folder, settings, DisTeacher(width=168).identity)
    listed = {}
    for k in range(clips):
        clip = clip_of(scene(seed=20 + k, frames=4), key=content_key("clip", k))
        write_clip(clip_path(folder, clip.key), clip)
        listed[clip.key] = len(clip)
    (folder / "sources").mkdir(parents=True)
    (folder / "sources" / "one.json").write_text(
        json.dumps({"source": "x", "content": "y", "clips": listed, "counts": {}})
    )
    return cache


def test_missing_and_damaged_labels_are_made_on_the_fly(tmp_path: Path) -> None:
    cache = make_cache(tmp_path / "cache")
    source = CachedClips(tmp_path / "cache")
    example = source.read(0, [0, 1, 2], np.random.default_rng(0), 3)
    assert len(example.pairs) == 3
    assert source.counts["relabelled"] == 1
    unit = cache.units(example.clip.key, 4)[0]
    data = cache.path(unit).read_bytes()
    cache.path(unit).write_bytes(data[:-40])
    source.read(0, [0, 1, 2], np.random.default_rng(0), 3)
    assert source.counts["relabelled"] == 2
    assert cache.path(unit).read_bytes() == data
    source.read(0, [0, 1, 2], np.random.default_rng(0), 3)
    assert source.counts["relabelled"] == 2


def test_an_empty_or_foreign_folder_is_no_cache(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="not a label cache"):
        CachedClips(tmp_path)
    make_cache(tmp_path / "cache", clips=0)
    with pytest.raises(TrainingError, match="no clips"):
        CachedClips(tmp_path / "cache")


def test_an_index_of_100k_frames_costs_little_memory(tmp_path: Path) -> None:
    make_cache(tmp_path / "cache", clips=1)
    listed = {content_key("long", k): 12 for k in range(100_000 // 12)}
    (tmp_path / "cache" / "sources" / "long.json").write_text(
        json.dumps({"source": "x", "content": "y", "clips": listed, "counts": {}})
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    source = CachedClips(tmp_path / "cache")
    epoch_order(5, 0, (len(source.lengths),), (1.0,))
    assert int(source.lengths.sum()) > 99_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000
