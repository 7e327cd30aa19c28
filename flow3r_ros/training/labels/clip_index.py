"""From bags, videos and image folders to clips: decoded once, repeats dropped, frames chosen by
motion instead of time, stored in shards.

A robot that stands still gives no clip, a fast turn gives many; a cut or a jump ends a clip. Each
clip is one self-checking shard of JPEG frames, so training streams a few kilobytes at a time
however long the recording was, and memory never grows with its length.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.camera import Rectifier, default_camera, pinhole, scaled
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.storage import Location, RemotePath, local_copy, write
from flow3r_ros.training.labels.clip_store import ClipSettings, clip_path, write_clip
from flow3r_ros.training.labels.clips import Clip
from flow3r_ros.training.shards import ShardError, content_key
from flow3r_ros.types import Camera, Frame, UInt8

MAX_CLIP_FRAMES = 1000
"""most frames that an index may say a clip has; settings allow 64"""
SAME_IMAGE = 0.25  # mean grey-level difference below which a frame repeats the one before
LONGEST_GAP_NS = 10_000_000_000  # frames further apart are of two clips (episodes, a pause)
PROBE_WIDTH = 160  # motion between frames is measured at this width (of a 4:3 image)


@dataclass
class ClipIndex:
    """The clips of one source: `clips` maps content key to frame count, in order; `counts` says
    what became of the frames."""

    source: str
    content: str
    clips: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


def index_source(
    source: Location,
    folder: Location,
    settings: ClipSettings,
    topic: str | None = None,
    again: bool = False,
) -> ClipIndex:
    """Cut one recording into clips under `folder`, or find that this was done before, unless it is
    to be done `again`, which makes the clips that are missing.

    Writes `folder/clips/KEY.shard` and, last, `folder/sources/KEY.json`: an interrupted run starts
    this source again and finds its clips in place. A source in storage is copied here only where it
    has to be cut. Raises InputError for a source without usable images, OutputError when the disk
    is full, StorageError.
    """
    memory = folder / "sources" / "hashes" / f"{_fingerprint(source)}.txt"
    if not again and memory.exists():
        content = memory.read_text(encoding="ascii").strip()
        known = read_index(_manifest(folder, content, topic, settings))
        if known is not None:
            return known
    with local_copy(source) as path:
        content = source_hash(path)
        write(memory, content.encode())
        manifest = _manifest(folder, content, topic, settings)
        known = None if again else read_index(manifest)
        if known is not None:
            return known
        index = ClipIndex(str(source), content)
        counts: Counter[str] = Counter()
        with open_source(path, topic=topic, episode="all") as frames:
            for clip in cut_clips(frames, settings, str(source), content, counts):
                if not clip_path(folder, clip.key).exists():
                    write_clip(clip_path(folder, clip.key), clip, settings.quality)
                index.clips[clip.key] = len(clip)
            drops = {f"unreadable_{reason}": number for reason, number in frames.drops.items()}
            counts.update(drops)
    if counts["frames"] == 0:
        raise InputError(
            f"{source}: no image could be read", "check the topic, or leave this source out"
        )
    index.counts = dict(counts)
    write(manifest, json.dumps(asdict(index), indent=1).encode())
    return index


def _manifest(
    folder: Location, content: str, topic: str | None, settings: ClipSettings
) -> Location:
    return folder / "sources" / f"{content_key(content, topic, settings.model_dump())}.json"


def cut_clips(
    frames: Iterable[Frame], settings: ClipSettings, source: str, content: str, counts: Counter[str]
) -> Iterator[Clip]:
    """Clips of consecutive chosen frames.

    `counts` collects `frames`, `repeated`, `still`, `chosen`, `cuts`, `resized` (a new size starts
    a clip), `wrong_size` (does not fit its camera: left out) and `alone` (chosen, but without a
    neighbour).

    Frames are rectified with their camera. A frame is chosen when the median flow since the last
    chosen one reaches `settings.min_motion`; when less than `min_overlap` is covisible, the image
    size changes, or LONGEST_GAP_NS pass without a frame, a new clip starts.
    """
    matcher = Matcher(width=PROBE_WIDTH, sparse_fallback=False)
    chooser = _Chooser(settings, matcher)
    chosen: list[tuple[int, UInt8, Camera]] = []
    rectifier = _CachedRectifier(settings.width)
    last_ns: int | None = None
    for frame in frames:
        counts["frames"] += 1
        if last_ns is not None and frame.stamp_ns - last_ns > LONGEST_GAP_NS:
            counts["cuts"] += 1
            yield from _finish(chosen, source, content, counts)
            chosen, chooser = [], _Chooser(settings, matcher)
        last_ns = frame.stamp_ns
        if (
            frame.camera is not None
            and (frame.camera.width, frame.camera.height) != frame.rgb.shape[1::-1]
        ):
            counts["wrong_size"] += 1
            continue
        rgb, camera = rectifier.apply(frame)
        verdict = chooser.judge(rgb)
        if verdict in ("repeated", "still"):
            counts[verdict] += 1
            continue
        if verdict in ("cut", "resized"):
            counts["cuts" if verdict == "cut" else "resized"] += 1
            yield from _finish(chosen, source, content, counts)
            chosen = []
        counts["chosen"] += 1
        chosen.append((frame.stamp_ns, rgb, camera))
        if len(chosen) == settings.frames:
            yield from _finish(chosen, source, content, counts)
            chosen = []
    yield from _finish(chosen, source, content, counts)


Verdict = Literal["first", "repeated", "still", "chosen", "cut", "resized"]


class _Chooser:
    """Compares each frame with the one before (repeat?) and with the last chosen one (enough
    motion?)."""

    def __init__(self, settings: ClipSettings, matcher: Matcher) -> None:
        self._settings, self._matcher = settings, matcher
        self._last: UInt8 | None = None
        self._chosen: UInt8 | None = None

    def judge(self, rgb: UInt8) -> Verdict:
        gray = self._matcher.prepare(rgb)
        verdict = self._compare(gray)
        self._last = gray
        if verdict not in ("repeated", "still"):
            self._chosen = gray
        return verdict

    def _compare(self, gray: UInt8) -> Verdict:
        if self._last is None or self._chosen is None:
            return "first"
        if self._last.shape != gray.shape:
            return "resized"
        if float(np.mean(cv2.absdiff(self._last, gray))) < SAME_IMAGE:
            return "repeated"
        found = self._matcher.flow(self._chosen, gray)
        seen = found.covisible
        if float(seen.mean()) < self._settings.min_overlap:
            return "cut"
        motion = float(np.median(np.linalg.norm(found.flow[seen], axis=-1))) / found.flow.shape[1]
        return "chosen" if motion >= self._settings.min_motion else "still"


class _CachedRectifier:
    """Undistorts and scales frames to the stored width; the maps are built once per camera."""

    def __init__(self, width: int) -> None:
        self._width = width
        self._camera: Camera | None = None
        self._rectifier: Rectifier | None = None

    def apply(self, frame: Frame) -> tuple[UInt8, Camera]:
        height, width = frame.rgb.shape[:2]
        camera = frame.camera or default_camera(width, height)
        if self._rectifier is None or camera != self._camera:
            self._camera, self._rectifier = camera, Rectifier(camera)
        rgb = self._rectifier.apply(frame.rgb)
        rows = max(2, round(self._width * height / width))
        small = np.asarray(
            cv2.resize(rgb, (self._width, rows), interpolation=cv2.INTER_AREA), np.uint8
        )
        return small, scaled(pinhole(self._rectifier.rectified), self._width, rows)


def _finish(
    chosen: list[tuple[int, UInt8, Camera]], source: str, content: str, counts: Counter[str]
) -> Iterator[Clip]:
    """The clip of the chosen frames, if there are at least two."""
    if len(chosen) < 2:
        counts["alone"] += len(chosen)
        return
    stamps = np.array([stamp for stamp, _, _ in chosen], np.int64)
    rgb = np.stack([image for _, image, _ in chosen])
    key = content_key(
        content, stamps.tolist(), list(rgb.shape), hashlib.sha256(rgb.tobytes()).hexdigest()
    )
    yield Clip(key, source, rgb, stamps, chosen[0][2])


def _fingerprint(source: Location) -> str:
    """Changes when the source does: name, sizes and times (versions, in storage) of its files.

    Raises InputError when there is nothing."""
    if isinstance(source, RemotePath):
        name, stats = str(source), [list(entry) for entry in source.listing().items()]
    else:
        name = os.path.realpath(source)
        stats = [
            [str(item.relative_to(source.parent)), (item.stat().st_size, item.stat().st_mtime_ns)]
            for item in _files_of(source)
        ]
    if not stats:
        raise InputError(f"{source}: no such file or folder, or nothing in it", "check the path")
    return content_key(name, stats)


def source_hash(path: Path) -> str:
    """SHA-256 of a source's bytes: of a file, or of every file of a folder."""
    digest = hashlib.sha256()
    for item in _files_of(path):
        digest.update(str(item.relative_to(path)).encode() + b"\0")
        with item.open("rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _files_of(path: Path) -> list[Path]:
    if path.is_file():
        return [path]
    return sorted(item for item in path.rglob("*") if item.is_file())


def read_index(path: Location) -> ClipIndex | None:
    """The index of one source, `sources/KEY.json`; None where it is missing or damaged."""
    try:
        index = ClipIndex(**json.loads(path.read_text(encoding="utf-8")))
        for key, frames in index.clips.items():
            clip_path(path.parent, key)
            if not 0 < frames <= MAX_CLIP_FRAMES:
                return None
    except (OSError, ValueError, TypeError, AttributeError, RecursionError, ShardError):
        return None
    return index
