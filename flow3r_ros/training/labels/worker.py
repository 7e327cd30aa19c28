"""The labelling worker: tasks are names, results are counts; recordings, clips and shards go
between the worker and the cache, wherever both are, so any process on any machine may do a task,
also twice."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import lru_cache

import cv2

from flow3r_ros.errors import CameraError, InputError, TrainingError
from flow3r_ros.storage import Location, location
from flow3r_ros.training.labels.cache import (
    LabelCache,
    LabelSettings,
    Pair,
    encode_labels,
)
from flow3r_ros.training.labels.clip_index import ClipIndex, index_source
from flow3r_ros.training.labels.clip_store import clip_path, decode_clip
from flow3r_ros.training.labels.teacher import FlowTeacher
from flow3r_ros.training.labels.teachers import open_teacher
from flow3r_ros.training.shards import ShardError, content_key, is_whole, looks_whole, read_bytes


@dataclass(frozen=True)
class Order:
    """What all tasks of a run share: address of the cache, its settings as JSON, image topic."""

    cache: str
    settings: str
    topic: str | None = None


@dataclass(frozen=True)
class CutTask:
    """Cut one recording into clips."""

    source: str


@dataclass(frozen=True)
class LabelTask:
    """Label one clip of a recording. With `wait`, wait for the shards that a run beside this one is
    making, and make those whose maker died; otherwise leave them."""

    source: str
    clip: str
    frames: int
    wait: bool = False


@dataclass(frozen=True)
class Cut:
    """The clips of a recording, or why it has none."""

    task: CutTask
    index: ClipIndex | None = None
    failure: InputError | CameraError | None = None


@dataclass
class Labelled:
    """What became of the pairs of a clip. `left` are being labelled by a run beside this one;
    `disagreed` is, for every other pair, what two teachers did not agree on."""

    task: LabelTask
    labelled: int = 0
    reused: int = 0
    relabelled: int = 0
    left: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    disagreed: list[float] = field(default_factory=list)


Task = CutTask | LabelTask
Result = Cut | Labelled


def work(order: Order, task: Task) -> Result:
    """Do a task. Raises TrainingError (a cache of other settings, or one that this machine does not
    see), OutputError (disk full), StorageError."""
    cv2.setNumThreads(1)
    cache = _opened(order)
    return _cut(cache, order, task) if isinstance(task, CutTask) else _label(cache, order, task)


def label_unit(clip: bytes, pairs: tuple[Pair, ...], settings_json: str) -> bytes:
    """Label some pairs of a clip (both as shard bytes). Pure, so that any process anywhere may run
    it again."""
    cv2.setNumThreads(1)
    settings = LabelSettings.model_validate_json(settings_json)
    teacher = _teacher(settings_json)
    frames = decode_clip(clip, "clip")
    return encode_labels(pairs, [teacher.flow(frames, i, j) for i, j in pairs], settings)


def _cut(cache: LabelCache, order: Order, task: CutTask) -> Cut:
    try:
        return Cut(task, _index(cache, order, task.source))
    except (InputError, CameraError) as error:
        return Cut(task, failure=error)


def _label(cache: LabelCache, order: Order, task: LabelTask) -> Labelled:
    """Make what is missing or damaged, shard by shard: what is finished stays when this process is
    killed."""
    done = Labelled(task)
    sound = looks_whole
    _mend(cache, order, task, sound)
    for unit in cache.units(task.clip, task.frames):
        state = cache.state(unit)
        with ExitStack() as stack:
            if state != "done":
                mine = stack.enter_context(cache.lock(unit.key, task.wait))
                state = cache.state(unit)  # it may have been made before the lock was ours
                if state != "done" and not mine:
                    done.left += len(unit.pairs)
                    continue
            if state == "done":
                done.reused += len(unit.pairs)
            else:
                if sound is not is_whole:  # it is read now: look closely, once
                    sound = is_whole
                    _mend(cache, order, task, sound)
                clip = read_bytes(cache.clip_path(unit))
                cache.store(unit, label_unit(clip, unit.pairs, order.settings))
                done.labelled += len(unit.pairs)
                done.relabelled += len(unit.pairs) if state == "damaged" else 0
        done.refused.update(reason for reason in cache.reasons(unit) if reason)
        done.disagreed += cache.disagreed(unit)
    return done


def _mend(
    cache: LabelCache, order: Order, task: LabelTask, sound: Callable[[Location], bool]
) -> None:
    """Cut a clip anew that is missing or not `sound`; its labels stay, they are addressed by its
    content."""
    shard = clip_path(cache.folder, task.clip)
    if sound(shard):
        return
    with cache.lock(f"mend-{task.clip}", wait=True):
        if not sound(shard):
            shard.unlink(missing_ok=True)
            _index(cache, order, task.source, again=True)
    if not sound(shard):
        raise ShardError(
            f"{shard}: cannot be cut anew from {task.source}",
            "the recording changed: label it again",
        )


def _index(cache: LabelCache, order: Order, source: str, again: bool = False) -> ClipIndex:
    with cache.lock(f"index-{content_key(source)}", wait=True):
        return index_source(
            location(source), cache.folder, cache.settings.clips, order.topic, again
        )


@lru_cache(maxsize=2)
def _opened(order: Order) -> LabelCache:
    """The cache, which must be there, made by the teacher that this machine has."""
    folder = location(order.cache)
    if not (folder / "cache.json").exists():
        raise TrainingError(
            f"{folder}: a worker does not see this label cache",
            "on a cluster --output and the recordings must be addresses (s3://BUCKET/NAME) or on "
            "a file system that all nodes share",
        )
    settings = LabelSettings.model_validate_json(order.settings)
    return LabelCache(folder, settings, _teacher(order.settings).identity)


@lru_cache(maxsize=2)
def _teacher(settings_json: str) -> FlowTeacher:
    settings = LabelSettings.model_validate_json(settings_json)
    return open_teacher(settings.teacher, **settings.teacher_options)
