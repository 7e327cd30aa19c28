"""Depth and confidence of a run as PNGs.

Depth has 16 bits: `depth = value / scale`, 0 = invalid, one scale for the run in `depth/meta.json`.
The scale is chosen from the first frame with depth, generously; when later depth outgrows it (a
scale that becomes metric in the middle of a run, a room that opens onto a street), the files
written so far are converted, so every depth fits. Confidence has 8 bits.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.types import Estimate, Float32, seconds

_TOP = 65535
_HEADROOM = 4.0
"""range kept above the 99.9th percentile of depth that set the scale"""
_OVERFLOW = 0.002
"""share of valid pixels beyond the range that makes the scale shrink"""


class DepthFiles:
    """Writes `NNNNNN.png` (frame id) of each estimate into `folder`, and `meta.json` at the end;
    OSError when the disk is full."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.scale = 0.0
        self._stamps: dict[str, str] = {}
        self._last: Estimate | None = None

    def add(self, estimate: Estimate) -> None:
        """Write one depth image, float32 `[h, w]` with NaN for invalid."""
        self._last = estimate
        self._fit(estimate.depth)
        name = f"{estimate.frame_id:06d}.png"
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

    def _fit(self, depth: Float32) -> None:
        valid = depth[np.isfinite(depth) & (depth > 0)]
        if not valid.size:
            return
        if self.scale and np.count_nonzero(valid * self.scale > _TOP) <= _OVERFLOW * valid.size:
            return
        scale = _round_down(_TOP / (_HEADROOM * float(np.percentile(valid, 99.9))))
        if self.scale and scale < self.scale:
            self._convert(scale / self.scale)
        self.scale = min(scale, self.scale) if self.scale else scale

    def _convert(self, factor: float) -> None:
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
        folder.mkdir()
        self.folder = folder

    def add(self, estimate: Estimate) -> None:
        """Write one confidence image, float32 `[h, w]` in [0, 1]; 0 where depth is invalid."""
        known = np.where(np.isfinite(estimate.depth), np.nan_to_num(estimate.confidence), 0.0)
        values = np.rint(255 * np.clip(known, 0, 1)).astype(np.uint8)
        _write_png(self.folder / f"{estimate.frame_id:06d}.png", values)


def _write_png(path: Path, values: np.ndarray) -> None:
    _, data = cv2.imencode(".png", values, [cv2.IMWRITE_PNG_COMPRESSION, 1])
    path.write_bytes(data.tobytes())


def _round_down(value: float) -> float:
    """The largest 1, 2 or 5 times a power of ten that is not above `value`."""
    power = 10.0 ** math.floor(math.log10(value))
    return next((step * power for step in (5.0, 2.0) if step * power <= value), power)
