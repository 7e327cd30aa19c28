"""Where clips come from: label caches of unlabelled recordings, labelled sequences, synthetic
scenes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.datasets.sequence import Sequence as RecordedSequence
from flow3r_ros.errors import TrainingError
from flow3r_ros.storage import Location, entries
from flow3r_ros.training.augmentation import Example, Pair, fitting_window, to_sample
from flow3r_ros.training.held_out import Stretch, hold_out, stretches_of
from flow3r_ros.training.labels.cache import LabelCache, LabelUnit
from flow3r_ros.training.labels.clip_index import ClipIndex, read_index
from flow3r_ros.training.labels.clip_store import clip_path, read_clip
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.labels.teacher import FlowTeacher
from flow3r_ros.training.labels.teachers import GeometricTeacher
from flow3r_ros.training.labels.worker import label_unit
from flow3r_ros.training.posed_depth import depth_of_poses
from flow3r_ros.training.shards import ShardError

WINDOW, HOP = 48, 24
"""frames in a clip of a labelled sequence, and between the starts of two"""
WIDTH = 336
"""pixels that its frames are shrunk to"""


class ClipSource(Protocol):
    """Clips of one origin; frames of a clip are addressed by position."""

    name: str

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of every clip, `[clips]`."""
        ...

    def strides(self) -> tuple[int, ...]:
        """Distances between consecutive frames of a sample that have labels."""
        ...

    def read(
        self, index: int, frames: Sequence[int], rng: np.random.Generator, pairs: int
    ) -> Example:
        """The chosen frames of one clip with up to `pairs` labelled pairs among them. Raises
        ShardError for damaged data."""
        ...


class CachedClips:
    """Unlabelled recordings from a label cache; a missing or damaged label shard is labelled on the
    fly and stored.

    `part` chooses between the frames for training and those held out (`held_out.hold_out`); clips
    with fewer frames than `shortest` are left out of either; `recording` (a key of `recordings_in`)
    takes the clips of one alone, which may be none. `counts` says how often shards were
    `relabelled` and how many clips were unreadable (`damaged_clips`).
    """

    def __init__(
        self,
        folder: Location,
        part: Literal["all", "train", "held_out"] = "all",
        held_out_share: float = 0.2,
        shortest: int = 2,
        recording: str = "",
        name: str = "",
    ) -> None:
        self.name = name or folder.name
        self.counts: Counter[str] = Counter()
        self._cache = LabelCache.existing(folder)
        stretches: dict[tuple[str, int], Stretch] = {}
        for manifest in entries(folder / "sources", f"{recording or '*'}.json"):
            listed = index_of(manifest).clips
            parts = (
                (stretches_of(listed), [])
                if part == "all"
                else hold_out(listed, held_out_share, shortest)
            )
            chosen = [stretch for stretch in parts[part == "held_out"] if len(stretch) >= shortest]
            stretches.update(((stretch.clip, stretch.start), stretch) for stretch in chosen)
        if not stretches and part != "held_out" and not recording:
            raise TrainingError(
                f"{folder}: the label cache holds no clips of {shortest} frames",
                "label recordings in which the camera moves",
            )
        self._stretches = list(stretches.values())
        self._lengths = np.array([len(stretch) for stretch in self._stretches], np.int64)

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of every clip that belong to this part."""
        return self._lengths

    def strides(self) -> tuple[int, ...]:
        """The strides that were labelled."""
        return self._cache.settings.strides

    def read(
        self, index: int, frames: Sequence[int], rng: np.random.Generator, pairs: int
    ) -> Example:
        """See `ClipSource.read`; pairs are drawn among those the teacher accepted."""
        stretch = self._stretches[index]
        wanted = [stretch.start + frame for frame in frames]
        labels: dict[Pair, FlowLabel] = {}
        for unit in self._cache.units(stretch.clip, stretch.clip_frames):
            if any(i in wanted and j in wanted for i, j in unit.pairs):
                labels.update(self._labels(unit))
        try:
            clip = read_clip(clip_path(self._cache.folder, stretch.clip), wanted)
        except ShardError:
            self.counts["damaged_clips"] += 1
            raise
        position = {frame: k for k, frame in enumerate(wanted)}
        usable = [pair for pair in labels if pair[0] in position and pair[1] in position]
        chosen = [usable[k] for k in sorted(rng.permutation(len(usable))[:pairs])]
        return Example(
            clip,
            tuple((position[i], position[j]) for i, j in chosen),
            tuple(labels[pair] for pair in chosen),
        )

    def _labels(self, unit: LabelUnit) -> dict[Pair, FlowLabel]:
        try:
            return self._cache.load(unit)
        except ShardError:
            self.counts["relabelled"] += 1
            clip = self._cache.clip_path(unit)
            if not clip.exists():
                raise
            self._cache.store(
                unit,
                label_unit(clip.read_bytes(), unit.pairs, self._cache.settings.model_dump_json()),
            )
            return self._cache.load(unit)


def index_of(manifest: Location) -> ClipIndex:
    """The index of one source of a label cache. Raises TrainingError where it is damaged."""
    index = read_index(manifest)
    if index is None:
        raise TrainingError(
            f"{manifest}: the index of a source is damaged", "run flow3r label again"
        )
    return index


def recordings_in(folder: Location) -> dict[str, str]:
    """The recordings of a label cache: key of their manifest -> name (a file by its folder too:
    many are called `frames.mp4`)."""
    names = {}
    for manifest in entries(folder / "sources", "*.json"):
        source = PurePosixPath(index_of(manifest).source)
        names[manifest.stem] = (
            f"{source.parent.name}/{source.name}" if source.suffix else source.name
        )
    return names


class LabelledClips:
    """Windows of recorded sequences whose frames all have true poses; flow comes from their
    geometry, depth too where nobody measured it.

    `WINDOW` frames form a clip, `HOP` frames lie between the starts of two; frames are shrunk to a
    width of `WIDTH`.
    """

    def __init__(
        self,
        sequences: Sequence[RecordedSequence],
    ) -> None:
        self.name = ", ".join(sorted({sequence.name for sequence in sequences}))
        self._sequences, self._teacher = sequences, GeometricTeacher()
        starts = [
            (s, start)
            for s, sequence in enumerate(sequences)
            for start in range(0, max(1, len(sequence) - 1), HOP)
        ]
        self._starts = np.array(starts, np.int64).reshape(-1, 2)
        self._lengths = np.array(
            [min(WINDOW, len(sequences[s]) - start) for s, start in starts], np.int64
        )

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Frames of every clip."""
        return self._lengths

    def strides(self) -> tuple[int, ...]:
        """Labels exist for every distance."""
        return (1, 2, 3, 4, 6, 8)

    def read(
        self, index: int, frames: Sequence[int], rng: np.random.Generator, pairs: int
    ) -> Example:
        """See `ClipSource.read`."""
        sequence, start = int(self._starts[index, 0]), int(self._starts[index, 1])
        recorded = self._sequences[sequence]
        read = [recorded.labelled(start + frame) for frame in frames]
        clip = Clip(
            key=f"{recorded.name}/{start}/{list(frames)}",
            source=recorded.name,
            rgb=np.stack([frame.rgb for frame in read]),
            stamps_ns=np.array([recorded.shots[start + f].stamp_ns for f in frames], np.int64),
            camera=read[0].camera,
            depth=np.stack([frame.depth for frame in read]),
            poses=np.stack([frame.pose for frame in read]),
        )
        clip = _shrunk(clip, WIDTH)
        if not any(recorded.shots[start + frame].depth for frame in frames):
            poses = np.stack([frame.pose for frame in read])
            clip = replace(clip, depth=depth_of_poses(clip.rgb, clip.camera, poses))
        return _with_labels(clip, self._teacher, rng, pairs)


def _shrunk(clip: Clip, width: int) -> Clip:
    """The clip at most `width` wide."""
    h, w = clip.rgb.shape[1:3]
    if w <= width:
        return clip
    grid = (width, max(2, round(width * h / w)))
    whole = to_sample(Example(clip, (), ()), fitting_window(w, h, (w, h), 1.0, 0.5, 0.5), grid)
    return replace(clip, rgb=whole.rgb, camera=whole.camera, depth=whole.depth)


def _draw_pairs(frames: int, rng: np.random.Generator, pairs: int) -> list[Pair]:
    every = [(i, j) for i in range(frames) for j in range(frames) if i != j]
    return [every[k] for k in sorted(rng.permutation(len(every))[:pairs])]


def _with_labels(clip: Clip, teacher: FlowTeacher, rng: np.random.Generator, pairs: int) -> Example:
    chosen = _draw_pairs(len(clip), rng, pairs)
    labelled = [(pair, teacher.flow(clip, *pair)) for pair in chosen]
    kept = [(pair, label) for pair, label in labelled if not label.reason]
    return Example(clip, tuple(pair for pair, _ in kept), tuple(label for _, label in kept))
