"""Does fine-tuning pay? Flow errors of held-out windows before and after a run, recording by
recording and pair by pair."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

import numpy as np

from flow3r_ros.errors import TrainingError
from flow3r_ros.network.model import Flow3r
from flow3r_ros.paths import write_atomically
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.validation import flow_errors

Errors = dict[str, list[list[float]]]
"""by recording: [head, geometry] end-point errors in pixels of every held-out pair"""


class Recordings(Protocol):
    """Held-out clips that know which recording they are of."""

    def by_recording(self, limit: int) -> Mapping[str, list[list[Sample]]]:
        """Up to `limit` clips of every recording, always the same."""
        ...


class Pairing:
    """Errors before a run, kept in `path` for the end of it or of its continuation, and after."""

    def __init__(self, clips: Recordings | None, path: Path, limit: int) -> None:
        self._clips, self._path, self._limit = clips, path, limit

    def before(self, network: Flow3r) -> None:
        """Measure and keep."""
        write_atomically(self._path, json.dumps(self._measure(network)).encode())

    def after(self, network: Flow3r) -> dict[str, dict[str, float]]:
        """Measure again; rows of `compare`, none where nothing was measured before. They are kept
        as `paired_rows.json`, for runs that export nothing."""
        if not self._path.exists():
            return {}
        before: Errors = json.loads(self._path.read_text(encoding="utf-8"))
        rows = compare(before, self._measure(network))
        write_atomically(
            self._path.with_name("paired_rows.json"), json.dumps(rows, indent=1).encode()
        )
        return rows

    def _measure(self, network: Flow3r) -> Errors:
        windows = {} if self._clips is None else self._clips.by_recording(self._limit)
        return {name: flow_errors(network, clips) for name, clips in windows.items()}


def compare(before: Errors, after: Errors) -> dict[str, dict[str, float]]:
    """Per recording: pairs, mean errors before and after of the factored head and of points and
    poses, and the share of pairs whose head got better."""
    rows = {}
    for name in sorted(before.keys() & after.keys()):
        old, new = np.array(before[name]), np.array(after[name])
        if old.shape != new.shape or not old.size:
            continue
        rows[name] = {
            "pairs": len(old),
            "head_before": round(float(old[:, 0].mean()), 4),
            "head_after": round(float(new[:, 0].mean()), 4),
            "geometry_before": round(float(old[:, 1].mean()), 4),
            "geometry_after": round(float(new[:, 1].mean()), 4),
            "pairs_better": round(float((new[:, 0] < old[:, 0]).mean()), 3),
        }
    return rows


def require_gain(rows: Mapping[str, Mapping[str, float]]) -> None:
    """Raises TrainingError naming the recordings on which the head did not get better."""
    worse = [
        f"{name} {row['head_before']:.3f} -> {row['head_after']:.3f} px"
        for name, row in rows.items()
        if not row["head_after"] < row["head_before"]
    ]
    if worse or not rows:
        raise TrainingError(
            "fine-tuning does not help: "
            + (f"held-out flow error {', '.join(worse)}" if worse else "nothing was held out"),
            "nothing is exported; leave these recordings out, lower the learning rate, or record "
            "more of the place (only_if_better: false exports all the same)",
        )
