"""`flow3r view`: a finished run in rerun."""

from __future__ import annotations

import json
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.errors import InputError
from flow3r_ros.offline.rerun_log import RerunLog
from flow3r_ros.report.mapped import lay_map
from flow3r_ros.report.page import load_record
from flow3r_ros.report.row import STATES
from flow3r_ros.report.scene import truth_of
from flow3r_ros.types import Camera, Float32, seconds


def view_run(folder: Path, log: RerunLog) -> int:
    """Log way, states, depth, the map with its loops and the truth of the output folder of a run or
    a replay.

    Returns how many frames there are. Raises EvaluationError where the folder is none, InputError
    where its depth cannot be read.
    """
    record = load_record(folder)
    points, colors = record.cloud
    if len(points):
        log.cloud("world/map", points, colors, static=True)
    truth = truth_of(record)
    if truth is not None:
        log.truth(truth)
    laid = lay_map(record)
    if laid is not None:
        log.way_in_map(laid.centres)
        log.loops(list(zip(laid.loops[::3], laid.loops[1::3], strict=True)))
    depth = _Depth(folder / "depth")
    states, segments = record.column("state").astype(int), record.column("segment").astype(int)
    frames = zip(record.stamps_ns, record.poses, states, segments, strict=True)
    for stamp_ns, pose, state, segment in frames:
        log.at(int(stamp_ns), pose, STATES[state], int(segment))
        known = depth.of(int(stamp_ns))
        if known is not None and depth.camera is not None:
            log.picture(depth.camera, known)
    return len(record)


class _Depth:
    """The depth files of a run by stamp; a replay has none."""

    def __init__(self, folder: Path) -> None:
        self.camera: Camera | None = None
        self._folder = folder
        self._names: dict[str, str] = {}
        self._scale = 1.0
        if not (folder / "meta.json").exists():
            return
        try:
            meta = json.loads((folder / "meta.json").read_text(encoding="utf-8"))
            self._names = {stamp: name for name, stamp in meta["stamps"].items()}
            self._scale = float(meta["scale"])
            self.camera = Camera(**meta["camera"]) if meta["camera"] else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise InputError(
                f"{folder / 'meta.json'}: cannot be read ({error})", "give the output of flow3r run"
            ) from error

    def of(self, stamp_ns: int) -> Float32 | None:
        """Depth `[h, w]`, NaN unknown; None where there is no file."""
        name = self._names.get(seconds(stamp_ns))
        values = None if name is None else cv2.imread(
            str(self._folder / Path(name).name), cv2.IMREAD_UNCHANGED
        )  # fmt: skip
        if values is None:
            return None
        return np.where(values > 0, values / np.float32(self._scale), np.nan).astype(np.float32)
