"""What a finished run says of each frame of an episode, as features of a LeRobot dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.datasets.lerobot_tables import Column, number_column, picture_column
from flow3r_ros.errors import InputError
from flow3r_ros.geometry.lie import quaternion_from_matrix
from flow3r_ros.mappings import read_mapping
from flow3r_ros.report.page import load_record
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Float64, TrackingState

POSE = ["x", "y", "z", "qx", "qy", "qz", "qw"]
STATES = {state.value: number for number, state in enumerate(TrackingState)}
"""numbers of the tracking states, those of `TrackingStatus`"""
NO_ESTIMATE = -1
"""tracking of a frame that the engine was not given, or dropped"""
MILLIMETRES = 1000.0
"""depth values per metre where the unit is metres: LeRobot's 16-bit depth"""
LARGEST = 32_767
"""largest depth value that is written: lerobot before 0.6 reads 16-bit pictures as signed"""
_SAMPLED, _STEP = 100, 8
"""depth images of an episode, and every how manieth pixel of them, that statistics are made of"""


@dataclass(frozen=True)
class RunRows:
    """A run folder's estimates: stamps int64 `[N]` ns, poses float64 `[N, 4, 4]` camera-to-world,
    tracking and segment int64 `[N]`; depth files by stamp, `depth_scale` values per unit,
    `depth_camera` the pinhole of the depth grid (fields of camera.json), and whether the unit of
    every frame is metres."""

    folder: Path
    record: RunRecord
    stamps_ns: NDArray[np.int64]
    poses: Float64
    tracking: NDArray[np.int64]
    segment: NDArray[np.int64]
    depth: dict[int, Path]
    depth_scale: float
    depth_camera: dict[str, Any]
    metric: bool


def read_run(folder: Path) -> RunRows:
    """Read a run folder (`flow3r run --output FOLDER`).

    Raises:
        EvaluationError: it holds no record.
        InputError: its depth cannot be read.
    """
    record = load_record(folder)
    spans = record.history.spans
    repeats = [span.frames for span in spans]
    meta_file = folder / "depth" / "meta.json"
    meta = read_mapping(meta_file, InputError, "run it again") if meta_file.exists() else {}
    try:
        depth = {
            _nanoseconds(seconds): folder / "depth" / name
            for name, seconds in meta.get("stamps", {}).items()
        }
        scale, camera = float(meta.get("scale", 1.0)), dict(meta.get("camera") or {})
    except (TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{meta_file}: makes no sense ({error})", "run it again") from error
    return RunRows(
        folder,
        record,
        record.stamps_ns,
        record.poses,
        np.repeat([STATES[span.state.value] for span in spans], repeats).astype(np.int64),
        np.repeat([span.segment for span in spans], repeats).astype(np.int64),
        depth,
        scale,
        camera,
        set(record.scale_states) == {"metric"},
    )


def columns_of(
    run: RunRows | None, stamps_ns: Sequence[int], camera: str, depth: DepthForm | None
) -> list[Column]:
    """The features `flow3r.CAMERA.*` of the frames with these stamps; `run` None: no estimates."""
    count = len(stamps_ns)
    poses = np.full((count, 7), np.nan, np.float32)
    tracking = np.full((count, 1), NO_ESTIMATE, np.int64)
    segment = np.full((count, 1), NO_ESTIMATE, np.int64)
    places = {stamp: row for row, stamp in enumerate(stamps_ns)}
    for index, stamp in enumerate(run.stamps_ns.tolist() if run else ()):
        row = places.get(stamp)
        if run is None or row is None:
            continue
        tracking[row], segment[row] = run.tracking[index], run.segment[index]
        if list(TrackingState)[run.tracking[index]].has_pose:
            T = run.poses[index]
            poses[row] = (*T[:3, 3], *quaternion_from_matrix(T[:3, :3]))
    prefix = f"flow3r.{camera}"
    unit = "metres" if depth is None or depth.metric else "one unit per segment, not metres"
    columns = [
        number_column(
            f"{prefix}.pose",
            poses,
            POSE,
            frame="camera to world, optical axes (x right, y down, z forward)",
            unit=unit,
            invalid="NaN",
        ),
        number_column(
            f"{prefix}.tracking", tracking, ["state"], states=STATES | {"no_estimate": NO_ESTIMATE}
        ),
        number_column(f"{prefix}.segment", segment, ["segment"]),
    ]
    if depth is not None and depth.camera:
        columns.append(depth.column(f"{prefix}.depth", run, stamps_ns))
    return columns


@dataclass(frozen=True)
class DepthForm:
    """How depth is stored in all episodes of a dataset: 16-bit PNG, `per_unit` values per unit of
    the poses, 0 where unknown, on the grid of `camera`, of which only the size is known where the
    episodes' lenses were found apart and differ."""

    per_unit: float
    metric: bool
    camera: dict[str, Any]

    @classmethod
    def of(cls, runs: Sequence[RunRows]) -> DepthForm:
        """Millimetres where every run is metric, else half the coarsest scale among the runs, so
        that everything stays below LARGEST."""
        metric = bool(runs) and all(run.metric for run in runs)
        scales = [run.depth_scale for run in runs if run.depth]
        cameras = [run.depth_camera for run in runs if run.depth_camera]
        camera = cameras[0] if cameras else {}
        if any(not _same_lens(camera, other) for other in cameras):
            camera = {name: camera[name] for name in ("width", "height")}
        return cls(MILLIMETRES if metric else min(scales, default=2.0) / 2, metric, camera)

    def column(self, key: str, run: RunRows | None, stamps_ns: Sequence[int]) -> Column:
        """Depth of the frames with these stamps."""
        shape = int(self.camera["height"]), int(self.camera["width"]), 1
        empty = _png(np.zeros(shape[:2], np.uint16))
        every = max(1, len(stamps_ns) // _SAMPLED)
        pictures, sample = [], []
        for row, stamp in enumerate(stamps_ns):
            file = run.depth.get(stamp) if run else None
            values = self._values(file, run.depth_scale, shape[:2]) if run and file else None
            pictures.append(empty if values is None else _png(values))
            if values is not None and row % every == 0:
                few = values[::_STEP, ::_STEP]
                sample.append(few[few > 0])
        kept = np.concatenate([*sample, np.zeros(0, np.uint16)]).astype(np.float64)[:, None]
        about = {"is_depth_map": True, "invalid": 0, "camera": self.camera}
        unit = {"depth_unit": "mm"} if self.metric else {"values_per_unit_of_pose": self.per_unit}
        return picture_column(key, pictures, shape, kept, **about, **unit)

    def _values(
        self, file: Path, scale: float, shape: tuple[int, ...]
    ) -> NDArray[np.uint16] | None:
        found = cv2.imread(str(file), cv2.IMREAD_UNCHANGED)
        if found is None or found.dtype != np.uint16 or found.shape != shape:
            raise InputError(
                f"{file}: is not the depth of {shape[1]}x{shape[0]} that the others are",
                "run it again with the same camera",
            )
        values = np.rint(found.astype(np.float64) * (self.per_unit / scale))
        values[values > LARGEST] = 0
        return values.astype(np.uint16)


def _same_lens(one: dict[str, Any], other: dict[str, Any]) -> bool:
    return bool(np.isclose(float(one["fx"]), float(other["fx"]), rtol=0.01))


def _nanoseconds(seconds: str) -> int:
    whole, _, fraction = seconds.partition(".")
    return int(whole) * 1_000_000_000 + int(fraction.ljust(9, "0")[:9])


def _png(values: NDArray[np.uint16]) -> bytes:
    _, data = cv2.imencode(".png", values)
    return data.tobytes()
