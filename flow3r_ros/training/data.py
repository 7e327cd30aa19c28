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

from flow3r_ros.datasets.labelled import (
    LabelledSequence,
    open_co3d,
    open_scannet,
    open_seven_scenes,
    open_tartanair,
    open_tum,
)
from flow3r_ros.datasets.labelled_bag import open_labelled_bag
from flow3r_ros.errors import TrainingError
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
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scenes.shards import SceneShards
from flow3r_ros.training.shards import ShardError

logger = logging.getLogger(__name__)

_BAG_SUFFIXES = (".mcap", ".db3", ".bag")


class HeldOut(Protocol):
    """Clips for validation, always the same."""

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` samples, one by one."""
        ...


class Source(Protocol):
    """Samples for training."""

    def batch(self, step: int, part: slice = ...) -> list[Sample]:
        """The samples of a step, or a part of them: a pure function of the step."""
        ...


@dataclass(frozen=True)
class TrainingData:
    """Samples to train on, clips to validate on (None when there are none), and where they came
    from, for the manifest."""

    source: Source
    held_out: Chained | None
    provenance: dict[str, Any] = field(default_factory=dict)


def open_data(
    paths: Sequence[Path],
    settings: DataSettings,
    seed: int,
    clips_per_step: int,
    pairs: int,
    workspace: Path,
    licences: Sequence[str] = (),
) -> TrainingData:
    """Open every path; recordings are labelled into `workspace/labels`.

    `licences` are those of the paths, one for all or one each; without them the `LICENSE` beside a
    recording counts. Raises InputError or TrainingError naming the path that cannot be used.
    """
    recordings = [path for path in paths if _kind(path, settings) == "recording"]
    provenance: dict[str, Any] = {"paths": [path.name for path in paths]}
    seen: list[provenances.Recording] = []
    given = dict(zip(paths, provenances.licences_of(paths, licences), strict=True))
    if recordings:
        report = label(recordings, workspace / "labels", settings.labels)
        provenance |= {"labels": report.as_dict()}
    weight_of = _weights(paths, settings)
    parts: list[tuple[Source, float]] = []
    held_out: list[HeldOut] = []
    for path in [path for path in paths if path not in recordings] + (
        [workspace / "labels"] if recordings else []
    ):
        kind = _kind(path, settings)
        weight = weight_of.get(path) or sum(weight_of[recording] for recording in recordings)
        if kind == "scenes":
            scenes = SceneShards([path], seed, clips_per_step)
            parts.append((scenes, weight))
            seen.append(provenances.of_scenes(path, len(scenes)))
            if _is_scene_shards(path / "held_out"):
                held_out.append(SceneShards([path / "held_out"], seed, 1))
        elif kind == "cache":
            teacher = LabelCache.existing(path).settings.teacher
            provenance["teacher"] = provenances.of_teacher(teacher)
            seen += provenances.of_cache(path, given)
            train, validation = _recordings(path, settings, pairs)
            parts.append((_steps(train, settings, seed, pairs, clips_per_step), weight))
            held_out += validation
        else:
            sequences = open_labelled(path, settings)
            clips = LabelledClips(sequences)
            frames = sum(len(sequence) for sequence in sequences)
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


def open_labelled(path: Path, settings: DataSettings) -> list[LabelledSequence]:
    """The sequences of a labelled data set. Raises InputError or BagError."""
    kind = _labelled_kind(path, settings)
    if kind == "co3d":
        return open_co3d(path)
    if kind == "bag":
        return [open_labelled_bag(path, settings.bag_topics)]
    openers = {
        "tum": open_tum,
        "seven_scenes": open_seven_scenes,
        "scannet": open_scannet,
        "tartanair": open_tartanair,
    }
    return [openers[kind](path)]


def _kind(path: Path, settings: DataSettings) -> str:
    """`scenes`, `cache`, the format of a labelled data set, or `recording`."""
    if _is_scene_shards(path):
        return "scenes"
    if (path / "cache.json").exists():
        return "cache"
    return _labelled_kind(path, settings) or "recording"


def _is_scene_shards(path: Path) -> bool:
    return path.is_dir() and any(path.glob("scenes_*.safetensors"))


def _labelled_kind(path: Path, settings: DataSettings) -> str:
    """Format of a labelled data set by the files that only it has; empty for everything else."""
    marks = {
        "tum": ("rgb.txt", "groundtruth.txt"),
        "scannet": ("intrinsic/intrinsic_depth.txt", "pose"),
        "tartanair": ("pose_left.txt", "image_left"),
        "co3d": ("frame_annotations.jgz",),
    }
    for kind, names in marks.items():
        if all((path / name).exists() for name in names):
            return kind
    if path.is_dir() and any(path.glob("frame-*.pose.txt")):
        return "seven_scenes"
    is_bag = path.suffix in _BAG_SUFFIXES or (path / "metadata.yaml").exists()
    return "bag" if is_bag and settings.bag_topics is not None else ""


def _weights(paths: Sequence[Path], settings: DataSettings) -> dict[Path, float]:
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
    cache: Path, settings: DataSettings, pairs: int
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
            kept = CachedClips(cache, name, "all", share, shortest, key)
        else:
            seen = CachedClips(cache, name, "train", share, shortest, key)
            train += [seen] if len(seen.lengths) else []
            kept = CachedClips(cache, name, "held_out", share, shortest, key)
        held_out += [HeldOutClips(kept, settings, pairs)] if len(kept.lengths) else []
    return train or [CachedClips(cache, "", "train", share, shortest)], held_out


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

    def __init__(self, sources: Sequence[Source], weights: Sequence[float], seed: int) -> None:
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
