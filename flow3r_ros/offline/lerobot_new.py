"""Recordings and finished runs as a new LeRobot dataset: an episode each, its pictures as video,
poses and depth as features."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.datasets.lerobot import EPISODES, INFO, VERSION, need_pyarrow
from flow3r_ros.datasets.lerobot_tables import (
    Column,
    Stats,
    arrow_array,
    arrow_field,
    hub_note,
    number_column,
    pixel_stats,
    stats_columns,
    whole_stats,
    write_json,
    write_tasks,
)
from flow3r_ros.datasets.lerobot_video import encode, pixel_format
from flow3r_ros.datasets.sources import open_source
from flow3r_ros.errors import Flow3rError, InputError
from flow3r_ros.offline.lerobot_rows import DepthForm, RunRows, columns_of
from flow3r_ros.offline.lerobot_runs import ExportOptions, ExportReport, run_of
from flow3r_ros.offline.summary import title_of
from flow3r_ros.types import Camera, UInt8

CAMERA = "camera"
KEY = f"observation.images.{CAMERA}"
PER_CHUNK = 1000
"""files per folder; every episode has its own"""
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_SAMPLE_EVERY, _STEP = 10, 8
"""frames, and pixels of them, that the statistics of pictures are made of"""
_LATE_S = 0.5
"""share of a frame's time that a stamp may be off the regular one before it is said"""

log = logging.getLogger(__name__)


def write_new(inputs: Sequence[Path], output: Path, options: ExportOptions) -> ExportReport:
    """Write the dataset into the empty folder `output`; what cannot be run is left out and said.

    Raises:
        InputError: nothing could be run, or the recordings differ in size or rate.
        OutputError: a video cannot be written.
    """
    report = ExportReport()
    runs: list[RunRows] = []
    for number, source in enumerate(inputs):
        try:
            runs.append(run_of(source, f"{number:06d}_{title_of(source)}", options))
        except Flow3rError as error:
            report.failed[str(source)] = str(error)
            if len(inputs) == 1:
                raise
    if not runs:
        why = next(iter(report.failed.values()))
        raise InputError(f"none of {len(inputs)} recordings could be run; the first: {why}")
    form = DepthForm.of(runs) if options.depth else None
    report.note_lenses(runs)
    fps = _rate(runs[0])
    dataset = _NewDataset(output, fps, options.task)
    for run in runs:
        if _rate(run) != fps:
            raise InputError(
                f"{run.folder}: has {_rate(run):g} frames a second, {runs[0].folder} has {fps:g}",
                "one dataset has one rate: export them apart",
            )
        film = _Film(run)
        count = encode(dataset.video(), film, fps)
        film.say_irregular(fps, report)
        dataset.add(film, count, columns_of(run, film.stamps_ns, CAMERA, form))
        report.frames_with_pose += int(np.isfinite(run.poses).all((1, 2)).sum())
    dataset.finish()
    report.episodes, report.frames = len(dataset.rows), dataset.frames
    report.features = [key for key in dataset.features if key.startswith("flow3r.")]
    return report


class _Film:
    """The pictures of a run, read from its source again; iterating fills stamps, size, camera and a
    sample of pixels."""

    def __init__(self, run: RunRows) -> None:
        self._run = run
        self.stamps_ns: list[int] = []
        self.size = (0, 0)
        self.camera: Camera | None = None
        self._sample: list[UInt8] = []

    def __iter__(self) -> Iterator[UInt8]:
        known = self._run.record.settings
        path = Path(str(known.get("input")))
        if not path.exists():
            raise InputError(
                f"{self._run.folder}: its pictures are in {path}, which is not there",
                "run the command where that path is right",
            )
        with open_source(
            path,
            known.get("topic") or None,
            known.get("camera") or None,
            int(known.get("every") or 1),
            known.get("max_frames"),
            episode=known.get("episode"),
        ) as source:
            for frame in source:
                if len(self.stamps_ns) % _SAMPLE_EVERY == 0:
                    self._sample.append(frame.rgb[::_STEP, ::_STEP].reshape(-1, 3))
                self.stamps_ns.append(frame.stamp_ns)
                self.size = frame.rgb.shape[1], frame.rgb.shape[0]
                self.camera = self.camera or frame.camera
                yield frame.rgb

    @property
    def stats(self) -> Stats:
        """Of the pictures, in [0, 1]."""
        return pixel_stats(np.concatenate(self._sample).astype(np.float64) / 255)

    def say_irregular(self, fps: float, report: ExportReport) -> None:
        """Note where the stamps are not those of a regular film."""
        stamps = np.array(self.stamps_ns, np.float64) / 1e9
        late = np.abs(stamps - stamps[0] - np.arange(len(stamps)) / fps).max()
        if late * fps > _LATE_S:
            report.note(
                f"{self._run.folder.name}: frames are {fps:g} a second in the dataset, their own "
                f"stamps (flow3r.{CAMERA}.stamp) are up to {late:.3f} s off that"
            )


@dataclass
class _NewDataset:
    """A dataset as it grows, episode by episode."""

    root: Path
    fps: float
    task: str
    frames: int = 0
    features: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    stats: list[dict[str, Stats]] = field(default_factory=list)

    def video(self) -> Path:
        """Where the video of the next episode goes."""
        return self.root / _VIDEO.format(video_key=KEY, **self._place())

    def add(self, film: _Film, count: int, estimates: list[Column]) -> None:
        """Write the rows of one episode, whose video is written."""
        size = self.features.get(KEY, {}).get("shape", [film.size[1], film.size[0], 3])
        if size != [film.size[1], film.size[0], 3]:
            raise InputError(
                f"episode {len(self.rows)}: pictures of {film.size[0]}x{film.size[1]}, those "
                f"before are {size[1]}x{size[0]}",
                "one dataset has one size: export them apart",
            )
        columns = [*estimates, _stamp_column(film.stamps_ns), *self._numbers(count)]
        if not self.features:
            self.features[KEY] = _video_feature(film, self.fps)
            self.features |= {column.key: _plain(column) for column in columns}
        self._write(columns)
        self.stats.append({KEY: film.stats} | {column.key: column.stats for column in columns})
        place = self._place()
        row: dict[str, Any] = {
            "episode_index": len(self.rows),
            "tasks": [self.task],
            "length": count,
            "dataset_from_index": self.frames,
            "dataset_to_index": self.frames + count,
            **{f"data/{name}": value for name, value in place.items()},
            **{f"videos/{KEY}/{name}": value for name, value in place.items()},
            f"videos/{KEY}/from_timestamp": 0.0,
            f"videos/{KEY}/to_timestamp": count / self.fps,
            "meta/episodes/chunk_index": 0,
            "meta/episodes/file_index": 0,
        }
        for key, stats in self.stats[-1].items():
            row |= stats_columns(key, stats)
        self.rows.append(row)
        self.frames += count

    def finish(self) -> None:
        """Write `meta/`."""
        import pyarrow

        episodes = self.root / EPISODES / "chunk-000" / "file-000.parquet"
        episodes.parent.mkdir(parents=True)
        need_pyarrow().write_table(pyarrow.Table.from_pylist(self.rows), episodes)
        write_tasks(self.root / "meta" / "tasks.parquet", [self.task])
        write_json(self.root / "meta" / "stats.json", whole_stats(self.stats))
        info = {
            "codebase_version": VERSION,
            "robot_type": None,
            "total_episodes": len(self.rows),
            "total_frames": self.frames,
            "total_tasks": 1,
            "chunks_size": PER_CHUNK,
            "data_files_size_in_mb": 100,
            "video_files_size_in_mb": 200,
            "fps": int(self.fps) if self.fps == int(self.fps) else self.fps,
            "splits": {"train": f"0:{len(self.rows)}"},
            "data_path": _DATA,
            "video_path": _VIDEO,
            "features": self.features,
        }
        write_json(self.root / INFO, info)

    def _write(self, columns: list[Column]) -> None:
        import pyarrow

        schema = pyarrow.schema(
            [arrow_field(column) for column in columns], metadata=hub_note(self.features)
        )
        table = pyarrow.Table.from_arrays(
            [arrow_array(column) for column in columns], schema=schema
        )
        path = self.root / _DATA.format(**self._place())
        path.parent.mkdir(parents=True, exist_ok=True)
        need_pyarrow().write_table(table, path)

    def _numbers(self, count: int) -> list[Column]:
        """The columns that every LeRobot dataset has."""
        frame = np.arange(count)
        given: dict[str, NDArray[Any]] = {
            "timestamp": (frame / self.fps).astype(np.float32),
            "frame_index": frame,
            "episode_index": np.full(count, len(self.rows)),
            "index": frame + self.frames,
            "task_index": np.zeros(count, np.int64),
        }
        return [number_column(key, values[:, None], []) for key, values in given.items()]

    def _place(self) -> dict[str, int]:
        chunk, file = divmod(len(self.rows), PER_CHUNK)
        return {"chunk_index": chunk, "file_index": file}


def _stamp_column(stamps_ns: list[int]) -> Column:
    return number_column(
        f"flow3r.{CAMERA}.stamp", np.array(stamps_ns, np.int64)[:, None], ["nanoseconds"]
    )


def _plain(column: Column) -> dict[str, Any]:
    return column.feature if column.feature["names"] else {**column.feature, "names": None}


def _video_feature(film: _Film, fps: float) -> dict[str, Any]:
    """The camera's entry in `info.json`, with its intrinsics where they are known."""
    width, height = film.size
    info = {
        "video.height": height,
        "video.width": width,
        "video.codec": "h264",
        "video.pix_fmt": pixel_format(width, height),
        "video.is_depth_map": False,
        "video.fps": fps,
        "video.channels": 3,
        "has_audio": False,
    }
    camera = {"camera": asdict(film.camera)} if film.camera else {}
    return {
        "dtype": "video",
        "shape": [height, width, 3],
        "names": ["height", "width", "channels"],
        "info": info | camera,
    }


def _rate(run: RunRows) -> float:
    """Frames a second by the run's stamps; a whole number where it is one within a hundredth."""
    steps = np.diff(run.stamps_ns)
    steps = steps[steps > 0]
    if not len(steps):
        return 30.0
    fps = 1e9 / float(np.median(steps))
    return float(round(fps)) if abs(fps - round(fps)) < 0.01 * fps else round(fps, 3)
