"""What a run writes to be watched: `metrics.csv`, `validation.jsonl`, pictures; the same as
TensorBoard events where installed."""

from __future__ import annotations

import csv
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import cv2

from flow3r_ros.errors import OutputError, cause_of
from flow3r_ros.types import UInt8

logger = logging.getLogger(__name__)

TERMS = ("flow", "point", "pose", "confidence", "normal")
_COLUMNS = ("step", "loss", *TERMS, "gradient_norm", "learning_rate", "skipped", "step_s", "wait_s")


class Silent:
    """The journal of a process that is not the first: takes everything, writes nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is open."""

    def write(self, row: dict[str, float]) -> None:
        """A training step."""

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """A validation."""

    def picture(self, step: int, name: str, image: UInt8) -> None:
        """A drawing of a held-out clip."""


class Journal(Silent):
    """The journal in a run's folder; rows of `metrics.csv` after the step resumed from (`first`)
    are dropped.

    Everything in it raises OutputError where it cannot be written.
    """

    def __init__(self, output: Path, first: int) -> None:
        self._output = output
        with _writing(output):
            self._open(output, first)

    def _open(self, output: Path, first: int) -> None:
        path = output / "metrics.csv"
        kept: list[dict[str, str]] = []
        if first and path.exists():
            with path.open(newline="", encoding="utf-8") as file:
                kept = [row for row in csv.DictReader(file) if int(float(row["step"])) <= first]
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open("w", newline="", encoding="utf-8")
        self._writer = csv.DictWriter(self._file, _COLUMNS)
        self._writer.writeheader()
        self._writer.writerows(kept)
        self._file.flush()
        self._events = _open_events(output / "tensorboard", first)

    def __exit__(self, *error: object) -> None:
        with suppress(OSError):  # what could not be written was said when it was
            self._file.close()
            if self._events is not None:
                self._events.close()

    def write(self, row: dict[str, float]) -> None:
        """Append a row and flush, so that a run can be watched."""
        logger.info("step %d: loss %.4f", row["step"], row["loss"])
        with _writing(self._output / "metrics.csv"):
            self._writer.writerow(
                {
                    name: int(value) if name in ("step", "skipped") else f"{value:.6g}"
                    for name, value in row.items()
                }
            )
            self._file.flush()
            self._scalars(
                "train",
                int(row["step"]),
                {name: value for name, value in row.items() if name != "step"},
            )

    def scores(self, step: int, scores: dict[str, float]) -> None:
        """Append held-out metrics to `validation.jsonl`."""
        logger.info(
            "step %d: %s", step, ", ".join(f"{key} {value:.3f}" for key, value in scores.items())
        )
        path = self._output / "validation.jsonl"
        with _writing(path), path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step, **scores}) + "\n")
            self._scalars("validation", step, scores)

    def picture(self, step: int, name: str, image: UInt8) -> None:
        """Write rgb uint8 `[H, W, 3]` as `pictures/step_000100_NAME.png`."""
        path = self._output / "pictures" / f"step_{step:06d}_{name}.png"
        with _writing(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(
                cv2.imencode(".png", cv2.cvtColor(image, cv2.COLOR_RGB2BGR))[1].tobytes()
            )
            if self._events is not None:
                self._events.add_image(name, image, step, dataformats="HWC")

    def _scalars(self, group: str, step: int, values: dict[str, float]) -> None:
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(f"{group}/{name}", value, step)
            self._events.flush()


def scores_before(output: Path) -> dict[str, float]:
    """Held-out metrics of the model that the run started from, if they were measured."""
    path = output / "validation.jsonl"
    rows = (
        [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        if path.exists()
        else []
    )
    return next(
        (
            {name: round(value, 4) for name, value in row.items() if name != "step"}
            for row in rows
            if row["step"] == 0
        ),
        {},
    )


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Turn an OSError into an OutputError that names `path`."""
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({cause_of(error)})",
            "free disk space or choose another --output",
        ) from error


def _open_events(folder: Path, first: int) -> Any:
    """A TensorBoard writer, or None where TensorBoard is not installed; events after step `first`
    of an earlier run are hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        logger.warning(
            "tensorboard is not installed: no event files, metrics.csv has the same "
            "numbers (pip install tensorboard)"
        )
        return None
    return SummaryWriter(str(folder), purge_step=first + 1 if first else None)
