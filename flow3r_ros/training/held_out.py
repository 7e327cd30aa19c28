"""Which frames of a recording are for training and which only for validation: later in time, never
interleaved."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Stretch:
    """Consecutive frames `start` up to `stop` of the clip with this key, which has `clip_frames` in
    all."""

    clip: str
    start: int
    stop: int
    clip_frames: int

    def __len__(self) -> int:
        return self.stop - self.start


def stretches_of(clips: Mapping[str, int]) -> list[Stretch]:
    """Every clip (key -> frames) whole."""
    return [Stretch(key, 0, frames, frames) for key, frames in clips.items()]


def hold_out(
    clips: Mapping[str, int], share: float, shortest: int
) -> tuple[list[Stretch], list[Stretch]]:
    """Split the clips of one recording (key -> frames, in order) into those for training and those
    held out.

    Held out is the last `share` of the frames, or more until a stretch of `shortest` frames, which
    make a sample, is among them; a clip may be cut in two for it, so that also a recording of one
    clip can be judged. Nothing is held out for share 0 and where it would leave no such stretch to
    train on.
    """
    whole, total = stretches_of(clips), sum(clips.values())
    for border in range(total - max(1, round(share * total)), 0, -1) if share > 0 else ():
        parts = _split(whole, border)
        if _has_sample(parts[1], shortest):
            return parts if _has_sample(parts[0], shortest) else (whole, [])
    return whole, []


def _split(stretches: list[Stretch], border: int) -> tuple[list[Stretch], list[Stretch]]:
    """The stretches before and after the first `border` frames."""
    before: list[Stretch] = []
    after: list[Stretch] = []
    for stretch in stretches:
        cut = min(max(border, 0), len(stretch))
        before += [Stretch(stretch.clip, 0, cut, stretch.clip_frames)] if cut else []
        after += (
            [Stretch(stretch.clip, cut, stretch.stop, stretch.clip_frames)]
            if cut < len(stretch)
            else []
        )
        border -= len(stretch)
    return before, after


def _has_sample(stretches: list[Stretch], shortest: int) -> bool:
    return any(len(stretch) >= shortest for stretch in stretches)
