"""The run folder: trajectory, depth, cloud, summary, settings and report, written as the run
goes."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import yaml

from flow3r_ros.config import Config
from flow3r_ros.offline.depth_files import ConfidenceFiles, DepthFiles, remove_others
from flow3r_ros.report.page import RECORD_FILE, write_report
from flow3r_ros.report.record import RunRecord
from flow3r_ros.types import Estimate, Float32, UInt8
from flow3r_ros.wire.ply import write_ply
from flow3r_ros.wire.tum import pose_numbers, tum_line

Points = tuple[Float32, UInt8, Float32]
"""xyz `[n, 3]`, rgb uint8 `[n, 3]`, confidence `[n]` in [0, 1]"""

_NO_POINTS: Points = (
    np.empty((0, 3), np.float32),
    np.empty((0, 3), np.uint8),
    np.empty(0, np.float32),
)


class RunFolder:
    """Writes the files of the contract into `folder`, which exists and is empty; OSError when the
    disk is full.

    Args:
        record: the run's numbers; every estimate added here is added to it.
        save_confidence: also write `confidence/`, 8-bit PNG.
        snapshot: go on in the folder as it was when `snapshot()` gave this (`record` too).
    """

    def __init__(
        self,
        folder: Path,
        record: RunRecord,
        save_confidence: bool = False,
        snapshot: dict[str, Any] | None = None,
    ) -> None:
        self.folder = folder
        self.record = record
        self._depth = DepthFiles(folder / "depth")
        self._confidence = ConfidenceFiles(folder / "confidence") if save_confidence else None
        self._written_ns: int | None = None
        self._trajectory: TextIO
        self._states: TextIO
        if snapshot is None:
            self._trajectory = (folder / "trajectory.tum").open("w", encoding="utf-8")
            self._states = (folder / "states.csv").open("w", encoding="utf-8", newline="")
        else:
            self._depth.restore(snapshot["depth"])
            self._written_ns = snapshot["written_ns"]
            self._trajectory = _cut(folder / snapshot["trajectory"], snapshot["trajectory_bytes"])
            self._states = _cut(folder / "states.csv", snapshot["states_bytes"])
            if save_confidence:
                remove_others(folder / "confidence", snapshot["depth"]["stamps"])
            for path in set(folder.glob("trajectory*.tum")) - {
                folder / name for name in snapshot["trajectories"]
            }:
                path.unlink()
        self._rows = csv.writer(self._states, lineterminator="\n")
        if snapshot is None:
            self._rows.writerow(("stamp_ns", "state", "segment", "reason"))

    @property
    def conversions(self) -> int:
        """How often the depth files were converted, which no older snapshot survives."""
        return self._depth.conversions

    def snapshot(self) -> dict[str, Any]:
        """The state of the files, for a RunFolder that goes on."""
        for file in (self._trajectory, self._states):
            file.flush()
        trajectory = Path(self._trajectory.name)
        return {
            "depth": self._depth.snapshot(),
            "written_ns": self._written_ns,
            "trajectory": trajectory.name,
            "trajectory_bytes": trajectory.stat().st_size,
            "trajectories": [path.name for path in self.folder.glob("trajectory*.tum")],
            "states_bytes": (self.folder / "states.csv").stat().st_size,
        }

    def add(self, estimate: Estimate) -> None:
        """Write one estimate: its state, a depth image, and where it has a pose a line of the
        trajectory.

        Stamps of one file increase: a segment that begins earlier than the one before it ended (a
        recording that started over) opens `trajectory_segN.tum`, N its number.
        """
        self.record.add(estimate)
        state = estimate.tracking_state
        self._rows.writerow((estimate.stamp_ns, state.value, estimate.segment, estimate.reason))
        if state.has_pose:
            if self._written_ns is not None and estimate.stamp_ns <= self._written_ns:
                self._trajectory.close()
                name = f"trajectory_seg{estimate.segment}.tum"
                self._trajectory = (self.folder / name).open("w", encoding="utf-8")
            self._written_ns = estimate.stamp_ns
            self._trajectory.write(tum_line(estimate.stamp_ns, pose_numbers(estimate.T_odom_cam)))
        self._depth.add(estimate)
        if self._confidence is not None:
            self._confidence.add(estimate)

    def close(self) -> None:
        """Close trajectory and states; safe to call twice."""
        self._trajectory.close()
        self._states.close()

    def finish(
        self,
        summary: dict[str, Any],
        config: Config,
        arguments: dict[str, Any],
        points: Points | None,
    ) -> None:
        """Write what is known only at the end: cloud, summary, settings, report."""
        self.close()
        self._depth.finish()
        write_ply(self.folder / "cloud.ply", *(points or _NO_POINTS))
        write_summary(self.folder, summary, config, arguments, self.record, points)


def _cut(path: Path, size: int) -> TextIO:
    """A file, cut to the bytes it had, to be written on."""
    with path.open("r+b") as file:
        file.truncate(size)
    return path.open("a", encoding="utf-8", newline="")


def write_summary(
    folder: Path,
    summary: dict[str, Any],
    config: Config,
    arguments: dict[str, Any],
    record: RunRecord,
    points: Points | None,
) -> None:
    """`summary.json`, `run.yaml`, the record and `report.html` of a run or a replay.

    `run.yaml` is a configuration again (`--config run.yaml` repeats the run); the arguments stand
    in its comments.
    """
    record.summary, record.settings = summary, {**arguments, **config.model_dump()}
    if points is not None:
        record.keep_cloud(*points)
    (folder / "summary.json").write_text(json.dumps(summary, indent=1) + "\n", encoding="utf-8")
    remarks = yaml.safe_dump(
        arguments, sort_keys=False, allow_unicode=True, width=10_000
    ).splitlines()
    settings = yaml.safe_dump(config.model_dump(), sort_keys=False)
    (folder / "run.yaml").write_text(
        "".join(f"# {line}\n" for line in remarks) + settings, encoding="utf-8"
    )
    record.save(folder / RECORD_FILE)
    write_report(folder / "report.html", record)
