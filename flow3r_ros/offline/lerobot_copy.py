"""A LeRobot dataset as a copy of itself with what flow3r says of every frame as further features:
tables are written anew an episode at a time, videos and the rest are copied."""

from __future__ import annotations

import json
import logging
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from flow3r_ros.datasets.lerobot import (
    DOWNLOAD_AGAIN,
    EPISODES,
    INFO,
    LeRobotDataset,
    read_table,
)
from flow3r_ros.datasets.lerobot_pictures import frame_ns
from flow3r_ros.datasets.lerobot_tables import (
    Stats,
    arrow_array,
    extended_schema,
    stats_columns,
    whole_stats,
    write_json,
)
from flow3r_ros.errors import Flow3rError, InputError, cause_of
from flow3r_ros.offline.lerobot_rows import DepthForm, RunRows, columns_of
from flow3r_ros.offline.lerobot_runs import ExportOptions, ExportReport, run_of

log = logging.getLogger(__name__)


def annotate(dataset: LeRobotDataset, output: Path, options: ExportOptions) -> ExportReport:
    """Write the copy of a dataset with `flow3r.CAMERA.*` beside its features into the empty folder
    `output`. An episode that cannot be run keeps its rows, without estimates.

    Raises:
        InputError: no episode could be run, or the dataset is damaged.
    """
    key = dataset.camera_key(options.topic)
    report = ExportReport()
    runs: dict[int, RunRows] = {}
    for episode in dataset.episodes:
        name = f"episode_{episode.index:06d}"
        try:
            runs[episode.index] = run_of(
                dataset.root, name, replace(options, topic=key), episode.index
            )
        except Flow3rError as error:
            report.failed[name] = str(error)
        log.info("%s of %d: %s", name, len(dataset.episodes), report.failed.get(name, "done"))
    if not runs:
        why = next(iter(report.failed.values()))
        raise InputError(f"{dataset.root}: no episode could be run; the first: {why}")
    shutil.copytree(
        dataset.root,
        output,
        ignore=lambda folder, names: _written_anew(dataset.root, Path(folder), names),
        dirs_exist_ok=True,
    )
    stats = _write_data(dataset, output, key.rpartition(".")[2], runs, options, report)
    _write_episodes(dataset, output, stats)
    return report


def _written_anew(root: Path, folder: Path, names: list[str]) -> list[str]:
    """Tables that are not copied, and what downloads leave behind."""
    inside = folder.relative_to(root).parts
    tables = inside[:1] == ("data",) or Path(*inside).is_relative_to(EPISODES)
    return [name for name in names if (tables and name.endswith(".parquet")) or name == ".cache"]


def _write_data(
    dataset: LeRobotDataset,
    output: Path,
    camera: str,
    runs: dict[int, RunRows],
    options: ExportOptions,
    report: ExportReport,
) -> list[dict[str, Stats]]:
    """The data files with the new columns, an episode at a time, `info.json` and `stats.json`;
    statistics of the new features per episode."""
    from pyarrow import compute, parquet

    form = DepthForm.of(list(runs.values())) if options.depth else None
    report.note_lenses(list(runs.values()))
    stats: list[dict[str, Stats]] = []
    features: dict[str, Any] = {}
    by_file: dict[Path, list[int]] = {}
    for episode in dataset.episodes:
        by_file.setdefault(episode.data, []).append(episode.index)
    for file, indices in by_file.items():
        target = output / file.relative_to(dataset.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        table, writer = read_table(file, "a data file"), None
        for index in indices:
            episode = dataset.episodes[index]
            rows = table.filter(compute.equal(table["episode_index"], index))
            if rows.num_rows != episode.length:
                raise InputError(
                    f"{file}: has {rows.num_rows} rows of episode {index}, which has "
                    f"{episode.length} frames",
                    DOWNLOAD_AGAIN,
                )
            stamps = [frame_ns(dataset, frame) for frame in rows["frame_index"].to_pylist()]
            columns = columns_of(runs.get(index), stamps, camera, form)
            taken = sorted({column.key for column in columns} & set(rows.column_names))
            if taken:
                raise InputError(
                    f"{dataset.root}: has {taken[0]} already", "give the dataset without it"
                )
            features = {column.key: column.feature for column in columns}
            stats.append({column.key: column.stats for column in columns})
            schema = extended_schema(rows.schema, columns)
            for column in columns:
                rows = rows.append_column(column.key, arrow_array(column))
            writer = writer or parquet.ParquetWriter(target, schema)
            writer.write_table(rows.cast(schema))
            report.frames_with_pose += int(columns[0].stats["count"][0])
        if writer is not None:
            writer.close()
    _write_info(dataset, output, features, stats)
    report.episodes = len(dataset.episodes)
    report.frames = sum(episode.length for episode in dataset.episodes)
    report.features = list(features)
    return stats


def _write_info(
    dataset: LeRobotDataset,
    output: Path,
    features: dict[str, Any],
    stats: list[dict[str, Stats]],
) -> None:
    write_json(output / INFO, {**dataset.info, "features": dataset.features | features})
    known = dataset.root / "meta" / "stats.json"
    try:
        before = json.loads(known.read_text(encoding="utf-8")) if known.exists() else {}
    except (OSError, ValueError) as error:
        raise InputError(f"{known}: cannot be read ({cause_of(error)})", DOWNLOAD_AGAIN) from error
    write_json(output / "meta" / "stats.json", before | whole_stats(stats))


def _write_episodes(dataset: LeRobotDataset, output: Path, stats: list[dict[str, Stats]]) -> None:
    """`meta/episodes` with the statistics of the new features."""
    import pyarrow
    from pyarrow import parquet

    for file in sorted((dataset.root / EPISODES).rglob("*.parquet")):
        table = read_table(file, "the list of episodes")
        cells = [
            {
                name: cell
                for key, found in stats[index].items()
                for name, cell in stats_columns(key, found).items()
            }
            for index in table["episode_index"].to_pylist()
        ]
        for name in cells[0] if cells else ():
            table = table.append_column(name, pyarrow.array([row[name] for row in cells]))
        target = output / file.relative_to(dataset.root)
        target.parent.mkdir(parents=True, exist_ok=True)
        parquet.write_table(table, target)
