"""How a run ends early and loses nothing: an interrupt is taken between two steps, a batch that
broke the loss is kept."""

from __future__ import annotations

import logging
import signal
import threading
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.checkpointing import write_safetensors
from flow3r_ros.training.sample import Batch

logger = logging.getLogger(__name__)


class Interrupt:
    """While entered, the first Ctrl-C (SIGINT) or SIGTERM only sets `asked`, so that the step under
    way ends; the second one strikes.

    Python delivers signals to the main thread alone; elsewhere, or not `enabled`, nothing changes.
    """

    def __init__(self, enabled: bool) -> None:
        self.asked = False
        self._enabled = enabled and threading.current_thread() is threading.main_thread()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupt:
        if self._enabled:
            self._before = {
                number: signal.signal(number, self._note)
                for number in (signal.SIGINT, signal.SIGTERM)
            }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        logger.info("stopping after this step; continue with --resume")


def keep_batch(output: Path, batch: Batch, what: str) -> TrainingError:
    """Write the batch to `output/not_finite_batch.safetensors` for inspection; the error to
    raise."""
    tensors = {
        "images": batch.images,
        "planes": batch.evidence.planes,
        "prior": batch.evidence.poses,
        "pairs": batch.pairs,
        "flow": batch.flow,
        "covisibility": batch.covisibility,
        "labelled": batch.labelled,
        **batch.truth._asdict(),
    }
    path = output / "not_finite_batch.safetensors"
    write_safetensors(path, tensors)
    return TrainingError(
        what,
        f"the batch is saved in {path}; lower the learning rate or look at the batch, "
        "then --resume",
    )
