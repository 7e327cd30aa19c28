"""The flow-label cache: compact shards of teacher flow, addressed by clip content, pairs, teacher
and settings.

Layout: `cache.json` (the settings everything in here was made with), `sources/`, `clips/` (see
`clip_index`) and `labels/`. A shard holds some ordered pairs of one clip; its name is the hash of
all that determines it, its tail the hash of its bytes, so it is either right or made anew. Several
processes may fill one cache: shards appear under their names at once, and are claimed with file
locks where there are files; in object storage two runs beside each other do some work twice and
write the same bytes.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from pydantic import Field, ValidationError

from flow3r_ros.config import Settings
from flow3r_ros.errors import OutputError, TrainingError, cause_of
from flow3r_ros.geometry.flow import resize_flow
from flow3r_ros.paths import locked
from flow3r_ros.storage import Location, RemotePath, write
from flow3r_ros.training.labels.clip_store import ClipSettings, clip_path
from flow3r_ros.training.labels.clips import FlowLabel
from flow3r_ros.training.labels.teacher import content_options
from flow3r_ros.training.shards import (
    Arrays,
    content_key,
    glance,
    looks_whole,
    pack_shard,
    read_shard,
)

FORMAT = 1
Pair = tuple[int, int]


class LabelSettings(Settings):
    """What is labelled, by whom, and how it is stored."""

    teacher: str = Field(
        "dis",
        description="dis, geometric, raft, sea_raft, ufm, an entry point, or two joined by + (only "
        "what both agree on)",
    )
    teacher_options: dict[str, Any] = Field(
        default_factory=dict,
        description="options of the teacher, e.g. width, weights; for one of two under its name",
    )
    strides: tuple[int, ...] = Field(
        (1, 2, 4), description="distances between the two frames of a pair, in chosen frames"
    )
    both_ways: bool = Field(True, description="label pairs backward in time as well")
    width: int = Field(
        168,
        ge=32,
        le=1280,
        description="width in pixels that labels are stored at (height follows the aspect ratio)",
    )
    encoding: Literal["float16", "int8"] = Field(
        "float16", description="int8: per-pair scale, error at most 0.4 % of the largest motion"
    )
    pairs_per_shard: int = Field(
        16, ge=1, le=512, description="pairs per shard: what a killed worker can lose"
    )
    clips: ClipSettings = Field(
        default_factory=ClipSettings, description="how recordings become clips"
    )


@dataclass(frozen=True)
class LabelUnit:
    """One shard's worth of work: some ordered pairs (frame positions) of one clip; `key` is the
    shard's address."""

    key: str
    clip: str
    pairs: tuple[Pair, ...]


class LabelCache:
    """A label cache folder. Raises TrainingError when it was made with other settings, saying which
    differ."""

    def __init__(self, folder: Location, settings: LabelSettings, identity: dict[str, Any]) -> None:
        self.folder, self.settings = folder, settings
        told = json.loads(
            json.dumps({"format": FORMAT, **settings.model_dump(), "teacher_identity": identity})
        )
        self._made_with = _without_places(told)
        known = _read_settings(folder)
        if known is None:
            write(folder / "cache.json", json.dumps(told, indent=1).encode())
        elif _without_places(known) != self._made_with:
            raise TrainingError(
                f"{folder}: this label cache was made with other settings "
                f"({_differences(_without_places(known), self._made_with)})",
                "give another --output, or the same settings",
            )

    @classmethod
    def existing(cls, folder: Location) -> LabelCache:
        """Open a cache as it was made, for training. Raises TrainingError when `folder` is none."""
        known = _read_settings(folder)
        if known is None:
            raise TrainingError(
                f"{folder}: not a label cache (no cache.json)", "make one with flow3r label"
            )
        identity = known["teacher_identity"]
        fields = {
            name: value
            for name, value in known.items()
            if name not in ("format", "teacher_identity")
        }
        try:
            return cls(folder, LabelSettings.model_validate(fields), identity)
        except ValidationError as error:
            raise TrainingError(
                f"{folder}/cache.json: made by another version of flow3r",
                "label again into another folder",
            ) from error

    def units(self, clip: str, frames: int) -> list[LabelUnit]:
        """The shards that a clip of this many frames needs, in order."""
        pairs = pairs_of(frames, self.settings.strides, self.settings.both_ways)
        size = self.settings.pairs_per_shard
        parts = [tuple(pairs[start : start + size]) for start in range(0, len(pairs), size)]
        return [LabelUnit(content_key(clip, part, self._made_with), clip, part) for part in parts]

    def path(self, unit: LabelUnit) -> Location:
        """Where the shard of a unit lies."""
        return self.folder / "labels" / unit.key[:2] / f"{unit.key}.shard"

    def clip_path(self, unit: LabelUnit) -> Location:
        """Where the clip of a unit lies."""
        return clip_path(self.folder, unit.clip)

    def state(self, unit: LabelUnit) -> Literal["done", "missing", "damaged"]:
        """Whether the unit's shard is there and its hash fits (in storage: its size)."""
        if looks_whole(self.path(unit)):
            return "done"
        return "damaged" if self.path(unit).exists() else "missing"

    def store(self, unit: LabelUnit, shard: bytes) -> None:
        """Put a finished shard in its place. Raises OutputError (disk full) or StorageError."""
        write(self.path(unit), shard)

    def load(self, unit: LabelUnit) -> dict[Pair, FlowLabel]:
        """The labels of a unit, refused pairs left out. Raises ShardError when missing or
        damaged."""
        arrays, metadata = read_shard(self.path(unit))
        return decode_labels(arrays, metadata)

    def reasons(self, unit: LabelUnit) -> list[str]:
        """Per pair of a unit: empty or why it was refused."""
        return list(glance(self.path(unit))["reasons"])

    def disagreed(self, unit: LabelUnit) -> list[float]:
        """Per pair of a unit: share of covisible pixels that two teachers disagreed on."""
        metadata = glance(self.path(unit))
        return list(metadata.get("disagreed", [0.0] * len(unit.pairs)))

    @property
    def teacher_identity(self) -> dict[str, Any]:
        """Who labelled: name, settings, hashes of the weights."""
        return dict(self._made_with["teacher_identity"])

    @contextlib.contextmanager
    def lock(self, name: str, wait: bool) -> Iterator[bool]:
        """Hold an exclusive lock that dies with this process; yields False when another holds it
        and `wait` is off. Object storage has none."""
        if isinstance(self.folder, RemotePath):
            yield True
            return
        path = self.folder / "locks" / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            lock = contextlib.ExitStack()
            lock.enter_context(locked(path, wait))
        except BlockingIOError:
            yield False
            return
        except OSError as error:
            raise OutputError(
                f"{path}: cannot be written ({cause_of(error)})",
                "check the folder, its permissions and the disk",
            ) from error
        with lock:
            yield True


def pairs_of(frames: int, strides: tuple[int, ...], both_ways: bool) -> list[Pair]:
    """Ordered pairs of frame positions at the given distances, forward and, if wished, backward."""
    forward = [(i, i + stride) for i in range(frames) for stride in strides if i + stride < frames]
    return [pair for i, j in forward for pair in ([(i, j), (j, i)] if both_ways else [(i, j)])]


def encode_labels(
    pairs: tuple[Pair, ...], labels: list[FlowLabel], settings: LabelSettings
) -> bytes:
    """A shard's bytes: flow at `settings.width` in float16 or int8 with a scale per pair,
    covisibility and confidence in uint8."""
    kept = [label for label in labels if not label.reason]
    grids = [_on_grid(label, settings.width) for label in kept]
    h, w = grids[0].covisibility.shape if grids else (1, 1)
    flow = (
        np.stack([grid.displacement for grid in grids])
        if grids
        else np.zeros((0, h, w, 2), np.float32)
    )
    arrays: Arrays = {
        name: _bytes_of([getattr(grid, name) for grid in grids], h, w)
        for name in ("covisibility", "confidence")
    }
    if settings.encoding == "float16":
        arrays["flow"] = np.clip(flow, -65000, 65000).astype(np.float16)
    else:
        scale = (
            np.maximum(np.abs(flow).max(axis=(1, 2, 3), initial=0.0), 1e-6).astype(np.float32)
            / 127.0
        )
        arrays["flow"], arrays["scale"] = (
            np.round(flow / scale[:, None, None, None]).astype(np.int8),
            scale,
        )
    said = {
        "pairs": pairs,
        "reasons": [label.reason for label in labels],
        "disagreed": [round(label.disagreed, 4) for label in labels],
    }
    return pack_shard(arrays, said)


def decode_labels(arrays: Arrays, metadata: dict[str, Any]) -> dict[Pair, FlowLabel]:
    """Inverse of `encode_labels`, refused pairs left out."""
    flow = arrays["flow"].astype(np.float32)
    if "scale" in arrays:
        flow = flow * arrays["scale"][:, None, None, None]
    seen, sure = (
        arrays[name].astype(np.float32) / 255.0 for name in ("covisibility", "confidence")
    )
    kept = [
        (int(i), int(j))
        for (i, j), reason in zip(metadata["pairs"], metadata["reasons"], strict=True)
        if not reason
    ]
    return {pair: FlowLabel(flow[k], seen[k], sure[k]) for k, pair in enumerate(kept)}


def _on_grid(label: FlowLabel, width: int) -> FlowLabel:
    h, w = label.covisibility.shape
    height = max(2, round(width * h / w))
    covisibility, confidence = (
        np.asarray(
            cv2.resize(plane.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA),
            np.float32,
        )
        for plane in (label.covisibility, label.confidence)
    )
    return FlowLabel(
        resize_flow(label.displacement.astype(np.float32), width, height), covisibility, confidence
    )


def _bytes_of(planes: list[Any], h: int, w: int) -> Any:
    stacked = np.stack(planes) if planes else np.zeros((0, h, w), np.float32)
    return np.round(np.clip(stacked, 0, 1) * 255).astype(np.uint8)


def _read_settings(folder: Location) -> dict[str, Any] | None:
    try:
        known = json.loads((folder / "cache.json").read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{folder}/cache.json: cannot be read ({cause_of(error)})",
            "label again into another folder",
        ) from error
    return dict(known)


def _without_places(made_with: dict[str, Any]) -> dict[str, Any]:
    """What decides the labels: not where the teacher's weights lie, whose hash is in its identity,
    nor on which device it runs."""
    return {**made_with, "teacher_options": content_options(made_with.get("teacher_options", {}))}


def _differences(known: dict[str, Any], asked: dict[str, Any], prefix: str = "") -> str:
    found = []
    for name in sorted({*known, *asked}):
        before, now = known.get(name), asked.get(name)
        if isinstance(before, dict) and isinstance(now, dict):
            inner = _differences(before, now, f"{prefix}{name}.")
            found += [inner] if inner else []
        elif before != now:
            found.append(f"{prefix}{name}: cache {before}, asked {now}")
    return "; ".join(found)
