"""What is kept of a run for its report: one row of numbers a frame and a handful of thumbnails, so
memory stays small.

`flow3r run`, `flow3r replay` and the demo fill a RunRecord while they work; reports and scoreboards
are made from it later.
"""

from __future__ import annotations

import json
import zipfile
import zlib
from array import array
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flow3r_ros.errors import EvaluationError, OutputError, cause_of
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.mappings import first_fault
from flow3r_ros.report.history import History
from flow3r_ros.report.row import COLUMNS, SOURCES, STATES, Thumbnail, row_of, thumbnail_of
from flow3r_ros.types import Estimate, Float32, Float64, UInt8

MAX_RECORD_BYTES = 1 << 30
"""largest record that is unpacked: a run of about six million frames"""
DAMAGE = (
    OSError,
    ValueError,
    KeyError,
    IndexError,
    TypeError,
    EOFError,
    OverflowError,
    MemoryError,
    RecursionError,
    NotImplementedError,
    zipfile.BadZipFile,
    zlib.error,
    SyntaxError,
)
"""what numpy and zipfile raise on damaged or hostile `.npz` files"""
MAX_THUMBNAILS = 8
MAX_CLOUD = 20_000
"""points of the map that are kept"""
_UPPER = np.triu_indices(6)
"""the 21 numbers of a symmetric [6, 6] that are kept"""


@dataclass
class RunRecord:
    """The numbers of one run, in the order the estimates came out.

    `summary` holds the keys of `summary.json` (contracts), `settings` the configuration tree,
    `reference` an optional ground truth, `mapped` the trajectory in the map (after loops and
    refinement) where there is one, `loops` int64 `[L, 2]` the stamps of the frames that loops
    connect, `history` what happened (segments, lost spans).
    """

    title: str
    summary: dict[str, Any] = field(default_factory=dict)
    settings: dict[str, Any] = field(default_factory=dict)
    reference: Trajectory | None = None
    mapped: Trajectory | None = None
    loops: NDArray[np.int64] = field(default_factory=lambda: np.empty((0, 2), np.int64))
    thumbnails: list[Thumbnail] = field(default_factory=list)
    stage_ms: dict[str, array[float]] = field(default_factory=dict)
    scale_states: Counter[str] = field(default_factory=Counter)
    history: History = field(default_factory=History)
    _stamps: array[int] = field(default_factory=lambda: array("q"))
    _poses: array[float] = field(default_factory=lambda: array("d"))
    _rows: array[float] = field(default_factory=lambda: array("f"))
    _covariances: array[float] = field(default_factory=lambda: array("d"))
    _every: int = 1
    _points: Float32 = field(default_factory=lambda: np.empty((0, 3), np.float32))
    _colors: UInt8 = field(default_factory=lambda: np.empty((0, 3), np.uint8))

    def __len__(self) -> int:
        return len(self._stamps)

    def add(self, estimate: Estimate) -> None:
        """Keep the numbers of one estimate, and now and then a thumbnail."""
        index = len(self)
        self._stamps.append(estimate.stamp_ns)
        self._poses.extend(estimate.T_odom_cam[:3].ravel().tolist())
        self._rows.extend(row_of(estimate, (estimate.stamp_ns - self._stamps[0]) / 1e9))
        self._covariances.extend(estimate.covariance[_UPPER])
        self._covariances.extend(estimate.step_covariance[_UPPER])
        self.history.add(estimate)
        self.scale_states[estimate.scale_state.value] += 1
        for stage, milliseconds in estimate.stage_ms.items():
            self.stage_ms.setdefault(stage, array("f")).append(milliseconds)
        if index % self._every == 0:
            if len(self.thumbnails) == MAX_THUMBNAILS:
                self.thumbnails = self.thumbnails[::2]
                self._every *= 2
            if index % self._every == 0:
                self.thumbnails.append(thumbnail_of(estimate, index))

    def keep_cloud(self, points: Float32, colors: UInt8, confidence: Float32) -> None:
        """Keep MAX_CLOUD of the map's points `[M, 3]` (in the trajectory's world) and their colours
        `[M, 3]`: spread over the more confident half."""
        least = np.median(confidence) if len(points) else 0.0
        sure = np.flatnonzero(confidence >= least)
        kept = sure[:: max(1, -(-len(sure) // MAX_CLOUD))]
        self._points, self._colors = points[kept].astype(np.float32), colors[kept]

    @property
    def cloud(self) -> tuple[Float32, UInt8]:
        """What `keep_cloud` kept: points `[M, 3]`, colours `[M, 3]`; empty without a map."""
        return self._points, self._colors

    @property
    def stamps_ns(self) -> NDArray[np.int64]:
        """Stamps of the estimated frames, int64 `[N]` nanoseconds."""
        return np.array(self._stamps, np.int64)

    @property
    def poses(self) -> Float64:
        """Camera-to-world poses, float64 `[N, 4, 4]`."""
        poses = np.tile(np.eye(4), (len(self), 1, 1))
        poses[:, :3] = np.array(self._poses, np.float64).reshape(-1, 3, 4)
        return poses

    def column(self, name: str) -> Float32:
        """One number a frame, float32 `[N]`; names in COLUMNS, NaN where the frame has none."""
        return np.array(self._rows, np.float32).reshape(-1, len(COLUMNS))[:, COLUMNS.index(name)]

    @property
    def covariances(self) -> Float64:
        """Covariances of pose and of step, float64 `[N, 2, 6, 6]`, as in `Estimate`."""
        whole = np.zeros((len(self), 2, 6, 6))
        upper = np.array(self._covariances, np.float64).reshape(-1, 2, len(_UPPER[0]))
        whole[..., _UPPER[0], _UPPER[1]] = upper
        whole[..., _UPPER[1], _UPPER[0]] = upper
        return whole

    def trajectory(self) -> Trajectory:
        """The estimated trajectory: the frames that have a pose, of all segments.

        Raises:
            EvaluationError: no frame has one.
        """
        lost = [STATES.index(state) for state in STATES if not state.has_pose]
        known = ~np.isin(self.column("state"), lost)
        return Trajectory(self.stamps_ns[known], self.poses[known], self.title)

    def save(self, path: Path) -> None:
        """Write the record as one compressed `.npz`.

        Raises:
            OutputError: the file cannot be written.
        """
        meta = {
            "title": self.title,
            "summary": self.summary,
            "settings": self.settings,
            "scale_states": dict(self.scale_states),
            "every": self._every,
            "thumbnails": [[thumbnail.index, thumbnail.stamp_ns] for thumbnail in self.thumbnails],
            "stages": list(self.stage_ms),
            "history": self.history.as_rows(),
            "columns": COLUMNS,
        }
        arrays: dict[str, NDArray[Any]] = {
            "meta": np.frombuffer(json.dumps(meta, default=str).encode(), np.uint8),
            "stamps": self.stamps_ns,
            "poses": np.array(self._poses, np.float64),
            "rows": np.array(self._rows, np.float32),
            "covariances": np.array(self._covariances, np.float64),
            "cloud_points": self._points,
            "cloud_colors": self._colors,
        }
        arrays |= {
            f"stage{i}": np.array(values, np.float32)
            for i, values in enumerate(self.stage_ms.values())
        }
        if self.reference is not None:
            arrays |= {
                "reference_stamps": self.reference.stamps_ns,
                "reference_poses": self.reference.poses,
            }
        if self.mapped is not None:
            arrays |= {"mapped_stamps": self.mapped.stamps_ns, "mapped_poses": self.mapped.poses}
            arrays["loops"] = self.loops
        for i, thumbnail in enumerate(self.thumbnails):
            arrays |= {
                f"rgb{i}": thumbnail.rgb,
                f"depth{i}": thumbnail.depth,
                f"confidence{i}": thumbnail.confidence,
                f"moving{i}": thumbnail.moving,
            }
        try:
            with path.open("wb") as file:
                np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({cause_of(error)})") from error

    @classmethod
    def load(cls, path: Path) -> RunRecord:
        """Read what `save` wrote.

        Raises:
            EvaluationError: the file is missing, damaged, or of another version.
        """
        cure = "give the folder that `flow3r run` or `replay` wrote"
        if not path.is_file():
            where = path.parent
            what = "is no output of a run" if where.is_dir() else "is no folder"
            missing = f" ({path.name} is missing)" if where.is_dir() else ""
            raise EvaluationError(f"{where}: {what}{missing}", cure)
        try:
            data = _read_arrays(path)
            return cls._restored(data, _Meta.model_validate_json(data["meta"].tobytes()))
        except ValidationError as error:
            raise EvaluationError(f"{path}: is damaged ({first_fault(error)})", cure) from error
        except EvaluationError as error:
            raise EvaluationError(f"{path}: is damaged ({error.what})", cure) from error
        except DAMAGE as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise EvaluationError(f"{path}: is not a run record ({reason})", cure) from error

    @classmethod
    def _restored(cls, data: dict[str, NDArray[Any]], meta: _Meta) -> RunRecord:
        """The record of checked metadata and arrays; ValueError or KeyError when they do not
        fit."""
        if meta.columns != COLUMNS:
            raise ValueError("it was written by another version: run again")
        record = cls(
            meta.title,
            meta.summary.model_dump(exclude_unset=True),
            meta.settings,
            scale_states=Counter(meta.scale_states),
        )
        frames = len(data["stamps"])
        _check(data, "stamps", "i", (frames,))
        _check(data, "poses", "f", (frames * 12,))
        _check(data, "rows", "f", (frames * len(COLUMNS),))
        record._stamps.extend(data["stamps"].tolist())
        record._poses.extend(data["poses"].tolist())
        record._rows.extend(data["rows"].tolist())
        _check(data, "covariances", "f", (frames * 2 * len(_UPPER[0]),))
        record._covariances.extend(data["covariances"].tolist())
        if "cloud_points" in data:  # records of older versions have none
            count = len(data["cloud_points"])
            _check(data, "cloud_points", "f", (count, 3))
            _check(data, "cloud_colors", "u", (count, 3))
            record._points, record._colors = data["cloud_points"], data["cloud_colors"]
        record.history = History.of_rows(meta.history)
        _check_values(record)
        record._every = meta.every
        for i, stage in enumerate(meta.stages):
            _check(data, f"stage{i}", "f", (len(data[f"stage{i}"]),))
            record.stage_ms[stage] = array("f", data[f"stage{i}"].tolist())
        for i, (index, stamp_ns) in enumerate(meta.thumbnails):
            size = data[f"depth{i}"].shape[:2]
            _check(data, f"rgb{i}", "u", (*size, 3))
            _check(data, f"depth{i}", "f", size)
            _check(data, f"confidence{i}", "f", size)
            _check(data, f"moving{i}", "b", size)
            images = (data[f"{name}{i}"] for name in ("rgb", "depth", "confidence", "moving"))
            record.thumbnails.append(Thumbnail(index, stamp_ns, *images))
        record.reference = _stored_trajectory(data, "reference")
        record.mapped = _stored_trajectory(data, "mapped")
        if "loops" in data:  # records of runs with a map
            _check(data, "loops", "i", (len(data["loops"]), 2))
            record.loops = data["loops"]
        return record


class Summary(BaseModel):
    """The keys of `summary.json` that reports read, where they are there; others pass through."""

    model_config = ConfigDict(extra="allow")
    frames_in: int = 0
    frames_dropped: dict[str, int] = {}
    tracking_states: dict[str, int] = {}
    pose_sources: dict[str, int] = {}
    seams: int = 0
    seams_refused: int = 0
    fps: float = 0.0
    latency_ms: dict[str, float | None] | None = None
    stage_ms_per_frame: dict[str, float] = {}
    peak_rss_mb: float | None = None


class _Meta(BaseModel):
    """The metadata of a record as `RunRecord.save` writes it."""

    title: str
    summary: Summary
    settings: dict[str, Any]
    scale_states: dict[str, int]
    every: int = Field(ge=1)
    thumbnails: list[tuple[int, int]] = Field(max_length=MAX_THUMBNAILS)
    stages: list[str] = Field(max_length=100)
    columns: tuple[str, ...]
    history: list[list[Any]] = Field(max_length=1_000_000)


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an `.npz`, where they unpack to no more than MAX_RECORD_BYTES."""
    with zipfile.ZipFile(path) as packed:
        size = sum(entry.file_size for entry in packed.infolist())
    if size > MAX_RECORD_BYTES:
        raise ValueError(f"it unpacks to {size >> 20} MB")
    with np.load(path, allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _stored_trajectory(data: dict[str, NDArray[Any]], name: str) -> Trajectory | None:
    if f"{name}_stamps" not in data:
        return None
    count = len(data[f"{name}_stamps"])
    _check(data, f"{name}_stamps", "i", (count,))
    _check(data, f"{name}_poses", "f", (count, 4, 4))
    return Trajectory(data[f"{name}_stamps"], data[f"{name}_poses"], name)


def _check(data: dict[str, NDArray[Any]], name: str, kind: str, shape: tuple[int, ...]) -> None:
    if data[name].dtype.kind != kind or data[name].shape != shape:
        found = f"{data[name].dtype} {list(data[name].shape)}"
        raise ValueError(f"{name} is {found}, not {list(shape)} of kind {kind}")


def _check_values(record: RunRecord) -> None:
    """ValueError where a pose is no pose, or a state or source is none that there is."""
    poses = record.poses
    with np.errstate(all="ignore"):
        rigid = np.abs(np.linalg.det(poses[:, :3, :3]) - 1.0) < 1e-3
    if not (np.isfinite(poses).all() and rigid.all()):
        raise ValueError("a pose is not finite or no rotation")
    for name, choices in (("state", STATES), ("source", SOURCES)):
        if not np.isin(record.column(name), np.arange(len(choices))).all():
            raise ValueError(f"column {name} holds an unknown value")
