"""What to do when memory runs out: first fewer frames a window, then smaller images."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch

from flow3r_ros.errors import ModelError
from flow3r_ros.types import Evidence, Window

SMALLEST_SIDE = 56
_TO_PREVIOUS = slice(4, 7)
"""evidence planes that speak of the previous frame of the window (layout: `geometry.evidence`)"""

_SAID = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "bad_alloc",
    "could not create a primitive",  # what oneDNN says on the CPU
    "could not execute a primitive",
    "can't start new thread",
)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception of PyTorch or Python means that memory ran out, on any device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return any(words in str(error).lower() for words in _SAID)


class Smaller:
    """How much smaller than asked for windows and images have become; starts at nothing, only ever
    shrinks.

    Attributes:
        frames: most frames a window may have; None = no limit.
        resolution: factor on the image side, at most 1.
    """

    def __init__(self) -> None:
        self.frames: int | None = None
        self.resolution = 1.0

    def apply(self, window: Window) -> Window:
        """The window without its oldest unwanted frames, as far as the limit asks."""
        while self.frames is not None and len(window.frames) > self.frames and _droppable(window):
            window = without_frame(window, _droppable(window)[0])
        return window

    def step(self, window: Window, size: tuple[int, int]) -> str:
        """Shrink once, after `window` at `size` did not fit; returns what was done. Raises
        ModelError when nothing smaller is left."""
        if _droppable(window) and len(window.frames) > 2:
            self.frames = len(window.frames) - 1
            return f"windows are cut to {self.frames} frames from now on"
        if min(size) <= SMALLEST_SIDE:
            raise ModelError(
                f"out of memory even at {size[0]}x{size[1]} pixels",
                "free memory, or choose a smaller model or model.device: cpu",
            )
        self.resolution *= 0.75
        return f"images are shrunk to {self.resolution:.0%} of their side from now on"


def without_frame(window: Window, frame_id: int) -> Window:
    """The window without one unwanted frame; its evidence is re-based to the new first frame."""
    kept = [index for index, frame in enumerate(window.frames) if frame.id != frame_id]
    evidence = window.evidence
    if evidence is not None:
        planes = evidence.planes[kept]
        for place, index in enumerate(kept):
            if index and index - 1 not in kept:
                planes[place, _TO_PREVIOUS] = 0.0
        poses = np.linalg.inv(evidence.poses[kept[0]]) @ evidence.poses[kept]
        evidence = Evidence(planes, poses, evidence.scale)
    return replace(window, frames=tuple(window.frames[index] for index in kept), evidence=evidence)


def _droppable(window: Window) -> list[int]:
    """Ids of frames whose result nobody wants, oldest first."""
    used = {*window.wanted, *(id_ for pair in window.pairs for id_ in pair)}
    return [frame.id for frame in window.frames if frame.id not in used]
