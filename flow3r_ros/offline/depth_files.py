"""Depth and confidence of a run as PNGs.

Depth has 16 bits: `depth = value / scale`, 0 = invalid, one scale for the run in `depth/meta.json`.
The scale is chosen from the first frame with depth, generously; when later depth outgrows it (a
scale that becomes metric in the middle of a run, a room that opens onto a street), the files
written so far are converted, so every depth fits. Confidence has 8 bits.
"""

from __future__ import annotations

import json
import math
import zlib
from collections.abc import Container
from dataclasses import asdict
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from flow3r_ros.errors import OutputError
from flow3r_ros.types import Estimate, Float32, seconds

_TOP = 65535
_HEADROOM = 4.0
"""range kept above the 99.9th percentile of depth that set the scale"""
_OVERFLOW = 0.002
"""share of valid pixels beyond the range that makes the scale shrink"""


class DepthFiles:
    """Writes `NNNNNN.png` (frame id) of each estimate into `folder`, and `meta.json` at the end;
    OSError when the disk is full. `conversions` counts how often the files were converted."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.scale = 0.0
        self.conversions = 0
        self._stamps: dict[str, str] = {}
        self._first = ""
        self._last: Estimate | None = None

    def snapshot(self) -> dict[str, Any]:
        """What `restore` needs to go on from here."""
        first = self.folder / self._first
        return {
            "scale": self.scale,
            "conversions": self.conversions,
            "stamps": dict(self._stamps),
            "last": self._last,
            "first": self._first,
            "crc": zlib.crc32(first.read_bytes()) if self._first else 0,
        }

    def restore(self, snapshot: dict[str, Any]) -> None:
        """Go on after the files that `snapshot` knows; later ones are removed. Raises OutputError
        where the files were converted since."""
        self.scale, self.conversions = snapshot["scale"], snapshot["conversions"]
        self._stamps, self._last = snapshot["stamps"], snapshot["last"]
        self._first = snapshot["first"]
        first = self.folder / self._first
        if self._first and zlib.crc32(first.read_bytes()) != snapshot["crc"]:
            raise OutputError(
                f"{first}: was converted after the state was kept", "begin anew with --restart"
            )
        remove_others(self.folder, self._stamps)

    def add(self, estimate: Estimate) -> None:
        """Write one depth image, float32 `[h, w]` with NaN for invalid."""
        self._last = estimate
        name = f"{estimate.frame_id:06d}.png"
        self._fit(estimate.depth, name)
        values = np.rint(
            np.nan_to_num(
                estimate.depth * np.float32(self.scale or 1.0), nan=0.0, posinf=0.0, neginf=0.0
            )
        )
        values[(values < 0) | (values > _TOP)] = 0
        _write_png(self.folder / name, values.astype(np.uint16))
        self._stamps[name] = seconds(estimate.stamp_ns)

    def finish(self) -> None:
        """Write `meta.json`: scale, unit, the pinhole of the depth grid (of the last frame), and
        the stamp of each file."""
        last = self._last
        meta = {
            "scale": self.scale or 1.0,
            "unit": "metres"
            if last is not None and last.scale_state.value == "metric"
            else "odometry units",
            "invalid": 0,
            "camera": asdict(last.camera) if last is not None else None,
            "stamps": self._stamps,
        }
        (self.folder / "meta.json").write_text(json.dumps(meta, indent=1) + "\n", encoding="utf-8")

    def _fit(self, depth: Float32, name: str) -> None:
        valid = depth[np.isfinite(depth) & (depth > 0)]
        if not valid.size:
            return
        if self.scale and np.count_nonzero(valid * self.scale > _TOP) <= _OVERFLOW * valid.size:
            return
        scale = _round_down(_TOP / (_HEADROOM * float(np.percentile(valid, 99.9))))
        if self.scale and scale < self.scale:
            self._convert(scale / self.scale)
        self._first = self._first or name
        self.scale = min(scale, self.scale) if self.scale else scale

    def _convert(self, factor: float) -> None:
        self.conversions += 1
        for name in self._stamps:
            values = cv2.imdecode(
                np.frombuffer((self.folder / name).read_bytes(), np.uint8), cv2.IMREAD_UNCHANGED
            )
            if values is not None:
                _write_png(
                    self.folder / name,
                    np.rint(values.astype(np.float64) * factor).astype(np.uint16),
                )


class ConfidenceFiles:
    """Writes `NNNNNN.png` (frame id) of each estimate's confidence into `folder`: 8 bits, 255 =
    certainly within 10 % of the true depth; OSError when the disk is full."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder

    def add(self, estimate: Estimate) -> None:
        """Write one confidence image, float32 `[h, w]` in [0, 1]; 0 where depth is invalid."""
        known = np.where(np.isfinite(estimate.depth), np.nan_to_num(estimate.confidence), 0.0)
        values = np.rint(255 * np.clip(known, 0, 1)).astype(np.uint8)
        _write_png(self.folder / f"{estimate.frame_id:06d}.png", values)


def remove_others(folder: Path, names: Container[str]) -> None:
    """Remove the pictures of `folder` that are not named: what came after a state was kept."""
    for path in folder.glob("*.png"):
        if path.name not in names:
            path.unlink()


def _write_png(path: Path, values: np.ndarray) -> None:
    # named, the default strategy is a quarter quicker than what OpenCV takes by itself
    strategy = [cv2.IMWRITE_PNG_STRATEGY, cv2.IMWRITE_PNG_STRATEGY_DEFAULT]
    _, data = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1, *strategy])
    path.write_bytes(data.tobytes())


def _round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (5.0, 2.0) if step * power <= value), power)
