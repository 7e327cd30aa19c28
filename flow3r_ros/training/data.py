"""`--data PATH...`: whatever lies at a path becomes samples, and some of its clips are kept for
validation.

A path is a folder of scene shards, a label cache, a data set with depth and poses (recognised by
its files), or a recording without labels (bag, video, image folder), which is labelled first, once,
into a cache beside the run.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flow3r_ros.datasets.formats import find_sequences
from flow3r_ros.datasets.labelled_bag import open_labelled_bag
from flow3r_ros.datasets.sequence import Sequence as RecordedSequence
from flow3r_ros.errors import TrainingError
from flow3r_ros.storage import Location
from flow3r_ros.training import provenance as provenances
from flow3r_ros.training.clip_sources import (
    CachedClips,
    ClipSource,
    LabelledClips,
    recordings_in,
)
from flow3r_ros.training.data_config import DataSettings
from flow3r_ros.training.dataset import Mixture, whole_sample, window_evidence
from flow3r_ros.training.labels.cache import LabelCache
from flow3r_ros.training.labels.labelling import label
from flow3r_ros.training.sample import Sample, SampleSource
from flow3r_ros.training.scenes.shards import SceneShards
from flow3r_ros.training.shards import ShardError

logger = logging.getLogger(__name__)

_BAG_SUFFIXES = (".mcap", ".db3", ".bag")


class HeldOut(Protocol):
    """Clips for validation, always the same."""

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` samples, one by one."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """Samples to train on, clips to validate on (None when there are none), and where they came
    from, for the manifest."""

    source: SampleSource
    held_out: Chained | None
    provenance: dict[str, Any] = field(default_factory=dict)


def open_data(
    paths: Sequence[Location],
    settings: DataSettings,
    seed: int,
    clips_per_step: int,
    pairs: int,
    workspace: Location,
    licences: Sequence[str] = (),
) -> TrainingData:
    """Open every path or address; recordings are labelled into `workspace/labels`. Scene shards and
    label caches in storage are read sample by sample, nothing of them is copied.

    `licences` are those of the paths, one for all or one each; without them the `LICENSE` beside a
    recording counts. Raises InputError or TrainingError naming the path that cannot be used.
    """
    labelled = {path: open_labelled(path, settings) for path in paths}
    recordings = [p for p in paths if _kind(p) == "recording" and not labelled[p]]
    provenance: dict[str, Any] = {"paths": [path.name for path in paths]}
    seen: list[provenances.Recording] = []
    given = dict(zip(paths, provenances.licences_of(paths, licences), strict=True))
    for path in recordings:
        if not isinstance(path, Path):
            logger.warning(
                "%s: taken as pictures without labels; depth and poses are read from local folders "
                "only: copy it here if it has them",
                path,
            )
    if recordings:
        report = label(recordings, workspace / "labels", settings.labels)
        provenance |= {"labels": report.as_dict()}
    weight_of = _weights(paths, settings)
    parts: list[tuple[SampleSource, float]] = []
    held_out: list[HeldOut] = []
    for path in [path for path in paths if path not in recordings] + (
        [workspace / "labels"] if recordings else []
    ):
        kind = _kind(path)
        weight = weight_of.get(path) or sum(weight_of[recording] for recording in recordings)
        if kind == "scenes":
            scenes = SceneShards([path], seed, clips_per_step)
            parts.append((scenes, weight))
            seen.append(provenances.of_scenes(path, len(scenes)))
            if _is_scene_shards(path / "held_out"):
                held_out.append(SceneShards([path / "held_out"], seed, 1))
        elif kind == "cache":
            cache = LabelCache.existing(path)
            provenance["teacher"] = provenances.of_teacher(
                cache.settings.teacher, cache.settings.teacher_options, cache.teacher_identity
            )
            seen += provenances.of_cache(path, given)
            train, validation = _recordings(path, settings, pairs)
            parts.append((_steps(train, settings, seed, pairs, clips_per_step), weight))
            held_out += validation
        elif isinstance(path, Path):  # what is labelled is a local one
            clips = LabelledClips(labelled[path])
            frames = sum(len(sequence) for sequence in labelled[path])
            seen.append(provenances.of_labelled(path, path.name, frames, given[path]))
            parts.append((_steps([clips], settings, seed, pairs, clips_per_step), weight))
    if not parts:
        raise TrainingError("no data was given", "add --data PATH...")
    source = (
        parts[0][0]
        if len(parts) == 1
        else Alternating([part for part, _ in parts], [weight for _, weight in parts], seed)
    )
    provenance["recordings"] = seen
    return TrainingData(source, Chained(held_out) if held_out else None, provenance)


def open_labelled(path: Location, settings: DataSettings) -> list[RecordedSequence]:
    """The sequences at a path that have depth and poses, reduced to the frames with both; empty for
    everything else and in storage. Raises InputError (BagError for bags) when a file is missing or
    damaged."""
    if not isinstance(path, Path) or _kind(path) != "recording":
        return []
    is_bag = path.suffix in _BAG_SUFFIXES or (path / "metadata.yaml").exists()
    if is_bag:
        return [open_labelled_bag(path, settings.bag_topics)] if settings.bag_topics else []
    sequences = [read for folder in find_sequences(path) for read in folder.sequences()]
    return [
        sequence.with_truth(depth=True)
        for sequence in sequences
        if any(shot.depth and shot.pose is not None and shot.camera for shot in sequence.shots)
    ]


def _kind(path: Location) -> str:
    """`scenes`, `cache` or `recording`, which may have labels of its own (`open_labelled`)."""
    if _is_scene_shards(path):
        return "scenes"
    return "cache" if (path / "cache.json").exists() else "recording"


def _is_scene_shards(path: Location) -> bool:
    return path.is_dir() and any(path.glob("scenes_*.safetensors"))


def _weights(paths: Sequence[Location], settings: DataSettings) -> dict[Location, float]:
    if settings.weights and len(settings.weights) != len(paths):
        raise TrainingError(
            f"{len(settings.weights)} data weights for {len(paths)} --data paths",
            "give one weight per path",
        )
    return dict(zip(paths, settings.weights or [1.0] * len(paths), strict=True))


class StepMixture:
    """A mixture with a fixed number of samples per step."""

    def __init__(self, mixture: Mixture, clips_per_step: int) -> None:
        self.mixture, self._size = mixture, clips_per_step

    def batch(self, step: int, part: slice = slice(None)) -> list[Sample]:
        """See `Mixture.batch`."""
        return self.mixture.batch(step, self._size, part)


def _recordings(
    cache: Location, settings: DataSettings, pairs: int
) -> tuple[list[ClipSource], list[HeldOut]]:
    """The recordings of a label cache as sources that count alike, however long each is, and their
    held-out clips. Raises TrainingError where there is nothing to train on."""
    names = recordings_in(cache)
    if unknown := set(settings.held_out_recordings) - set(names.values()):
        raise TrainingError(
            f"{cache}: holds no recording {', '.join(sorted(unknown))}",
            f"held_out_recordings may name {', '.join(sorted(names.values()))}",
        )
    shortest, share = settings.frames[0], settings.held_out_share
    train: list[ClipSource] = []
    held_out: list[HeldOut] = []
    for key, name in names.items():
        if name in settings.held_out_recordings:
            kept = CachedClips(cache, "all", share, shortest, key, name)
        else:
            seen = CachedClips(cache, "train", share, shortest, key, name)
            train += [seen] if len(seen.lengths) else []
            kept = CachedClips(cache, "held_out", share, shortest, key, name)
        held_out += [HeldOutClips(kept, settings, pairs)] if len(kept.lengths) else []
    return train or [CachedClips(cache, "train", share, shortest)], held_out


def _steps(
    clips: Sequence[ClipSource], settings: DataSettings, seed: int, pairs: int, clips_per_step: int
) -> StepMixture:
    evidence = window_evidence() if settings.evidence else None
    mixture = Mixture(
        clips, None, seed, settings.frames, settings.grids, pairs, settings.augment, evidence
    )
    return StepMixture(mixture, clips_per_step)


class Alternating:
    """Several sources; each step is drawn whole from one of them, by weight, as a function of the
    step."""

    def __init__(
        self, sources: Sequence[SampleSource], weights: Sequence[float], seed: int
    ) -> None:
        share = np.asarray(weights, np.float64)
        if not (share >= 0).all() or share.sum() <= 0:
            raise TrainingError(
                f"data weights {list(weights)} cannot be used",
                "weights are not negative and one is positive",
            )
        self._sources, self._share, self._seed = list(sources), share / share.sum(), seed

    def batch(self, step: int, part: slice = slice(None)) -> list[Sample]:
        """The samples of a step, or a part of them."""
        chosen = np.random.default_rng((self._seed, step, 4)).choice(
            len(self._sources), p=self._share
        )
        return self._sources[int(chosen)].batch(step, part)


class HeldOutClips:
    """Frames that training never sees, in windows as long as its shortest samples, not augmented,
    on the first grid."""

    def __init__(self, clips: CachedClips, settings: DataSettings, pairs: int) -> None:
        self.name = clips.name
        self._clips, self._settings = clips, settings
        self._pairs = max(pairs, 4)

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` samples, one by one: different windows at every labelled stride, in an
        order of chance that is always the same."""
        evidence = window_evidence() if self._settings.evidence else None
        windows = self._windows()
        for number in np.random.default_rng(0).permutation(len(windows))[:limit]:
            clip, frames = windows[number]
            try:
                example = self._clips.read(clip, frames, np.random.default_rng(number), self._pairs)
            except ShardError as error:
                logger.warning("not validated on: %s", error)
                continue
            if example.pairs:
                yield [whole_sample(example, self._settings.grids[0], self._pairs, evidence)]

    def _windows(self) -> list[tuple[int, list[int]]]:
        """Clip and frames of every window there is."""
        steps = self._settings.frames[0] - 1
        return [
            (clip, list(range(start, start + steps * stride + 1, stride)))
            for clip, length in enumerate(self._clips.lengths)
            for stride in self._clips.strides()
            for start in range(int(length) - steps * stride)
        ]


class Chained:
    """Held-out clips of several sources, shared evenly."""

    def __init__(self, parts: Sequence[HeldOut]) -> None:
        self._parts = list(parts)

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` samples in all."""
        for part in self._parts:
            yield from part.all(max(1, limit // len(self._parts)))

    def by_recording(self, limit: int) -> dict[str, list[list[Sample]]]:
        """Up to `limit` samples of every recording without labels."""
        parts = [part for part in self._parts if isinstance(part, HeldOutClips)]
        return {part.name: list(part.all(limit)) for part in parts}
