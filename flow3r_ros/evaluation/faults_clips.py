"""Faults made of real clips: a film with what goes wrong spliced into it, in memory.

A splice is what the odometry gets: a lead of good frames, the fault, and mostly a return to where
the camera was before it, which is a known place. Each picture remembers which frame of the clip it
shows, so that a pose can be held against that frame's, whatever the order.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import Enum

import cv2
import numpy as np

from flow3r_ros.datasets.sources import Source
from flow3r_ros.errors import EvaluationError
from flow3r_ros.types import Camera, Frame, UInt8

LEAD, FAULT, TAIL, SKIP, DROPPED = 30, 12, 20, 25, 20
"""frames of a splice before, in and after the fault; frames that a jump skips; frames that a drop
leaves out. Shorter clips get shares of them"""
FROZEN, BLURRED = 6, 3
"""pictures that are frozen, pictures that are blurred"""
MOST = 400
"""frames of a clip that are looked at for its fastest moment"""
LEAST = 36
"""frames without which there is no room for lead, fault and return"""


class Expect(Enum):
    """What the odometry owes to a fault."""

    NOTHING = "nothing: a clean control"
    NOTICED = "noticed"
    NOTICED_OR_RIGHT = "noticed, or tracked right"
    GROWN = "noticed, or the covariance grows"
    HELD = "never lost"
    SAID = "said that the intrinsics do not fit"


@dataclass(frozen=True)
class Shot:
    """One picture of a splice: which frame of the clip it shows (None: nothing of it), and whether
    the camera is upside down."""

    rgb: UInt8
    shows: int | None
    upside_down: bool = False


@dataclass(frozen=True)
class Splice:
    """Frames with a fault; `shows` and `upside_down` are parallel to them.

    The fault is in the frames `first <= id < end`; from frame `known` on the camera sees a place it
    saw before (None: not in this splice); `network` names what is wrong with the network there.
    """

    name: str
    expect: Expect
    frames: tuple[Frame, ...]
    shows: tuple[int | None, ...]
    upside_down: tuple[bool, ...]
    first: int
    end: int
    known: int | None = None
    network: str = ""


@dataclass(frozen=True)
class Cutting:
    """How the frames of one clip are shared out; counts as LEAD, FAULT, TAIL, SKIP, DROPPED."""

    lead: int
    fault: int
    tail: int
    skip: int
    dropped: int

    @classmethod
    def of(cls, frames: int) -> Cutting:
        """Shares for a clip of so many frames. Raises EvaluationError when there are too few."""
        if frames < LEAST:
            raise EvaluationError(
                f"the clip has {frames} frames; a fault needs {LEAST}", "give a longer clip"
            )
        lead = min(LEAD, int(0.4 * frames))
        rest = frames - lead
        fault = min(FAULT, rest // 3)
        skip, dropped = min(SKIP, rest - fault), min(DROPPED, rest - fault)
        return cls(lead, fault, min(TAIL, rest - fault), skip, dropped)

    @property
    def length(self) -> int:
        """Frames of the clip that are used."""
        return self.lead + max(
            self.fault + self.tail, self.skip + self.fault, self.dropped + self.fault
        )


def read_clip(source: Source) -> list[Frame]:
    """The frames of an open source around its fastest moment, numbered from 0: the lead ends where
    the next DROPPED frames change the picture most. Raises EvaluationError when there are too
    few, and what the source raises."""
    frames: list[Frame] = []
    for frame in source:
        frames.append(frame)
        if len(frames) == MOST:
            break
    cutting = Cutting.of(len(frames))
    small = np.stack([_thumbnail(frame.rgb) for frame in frames])
    starts = range(len(frames) - cutting.length + 1)
    changes = [
        float(
            np.abs(small[s + cutting.lead + cutting.dropped - 1] - small[s + cutting.lead]).mean()
        )
        for s in starts
    ]
    start = int(np.argmax(changes))
    return [
        replace(frame, id=index)
        for index, frame in enumerate(frames[start : start + cutting.length])
    ]


def splices(clip: Sequence[Frame], other: Sequence[Frame], seed: int = 0) -> list[Splice]:
    """Every fault, the clean control first. `clip` is what `read_clip` gave, `other` another film
    (its pictures are cropped and resized to this one's)."""
    cutting = Cutting.of(len(clip))
    lead, fault, tail, skip = cutting.lead, cutting.fault, cutting.tail, cutting.skip
    rng = np.random.default_rng(seed)
    before, back = _shots(clip, 0, lead), _shots(clip, lead, lead + tail)
    during = _shots(clip, lead, lead + fault)
    after = _shots(clip, lead + fault, lead + fault + tail)
    elsewhere = _shots(clip, lead + skip, lead + skip + fault)
    shape = clip[0].rgb.shape
    film = [Shot(_fitted(frame.rgb, shape), None) for frame in other[:fault]]
    black = [Shot(np.zeros(shape, np.uint8), None)] * fault
    dark = [Shot(rng.integers(0, 3, shape).astype(np.uint8), None) for _ in range(fault)]
    frozen = [replace(before[-1])] * FROZEN
    turned = [
        Shot(np.ascontiguousarray(s.rgb[::-1, ::-1]), s.shows, upside_down=True) for s in during
    ]
    bright = _changed(during, lambda rgb: cv2.convertScaleAbs(rgb, alpha=2.0))
    blurred = _changed(during[:BLURRED], _blur)
    mixed = [during[i] for i in _out_of_order(fault)]
    may = Expect.NOTICED_OR_RIGHT
    made = [
        _splice(clip, "cut to another film", Expect.NOTICED, before, film, back),
        _splice(clip, "jump in the same room", may, before, elsewhere, back),
        _splice(clip, "black frames and back", Expect.NOTICED, before, black, back),
        _splice(clip, "lens cap and elsewhere", Expect.NOTICED, before, dark, back, elsewhere),
        _dropped(clip, cutting),
        _splice(clip, "frozen picture", Expect.GROWN, before, frozen, during[FROZEN:] + after),
        _splice(clip, "upside down", may, before, turned, after),
        _splice(clip, "exposure x2", Expect.HELD, before, bright, after),
        _splice(clip, f"{BLURRED} blurred frames", may, before, blurred, during[BLURRED:] + after),
        _splice(clip, "frames out of order", may, before, mixed, after),
    ]
    for network in ("nan", "garbage", "yesterday"):
        name = f"network: {network}"
        made.append(replace(_splice(clip, name, may, before, during, after), network=network))
    whole, span = _shots(clip, 0, len(clip)), (len(clip), len(clip))
    clean = _gathered("clean", Expect.NOTHING, list(clip), whole, span, None)
    wrong = _wrong_intrinsics(clean)
    return [clean, *made, *([wrong] if wrong else [])]


def _splice(
    clip: Sequence[Frame],
    name: str,
    expect: Expect,
    before: list[Shot],
    fault: list[Shot],
    back: list[Shot],
    between: list[Shot] | None = None,
) -> Splice:
    """Lead, fault, what lies between, return, at the regular pace of the clip."""
    shots = [*before, *fault, *(between or []), *back]
    period = int(np.median(np.diff([frame.stamp_ns for frame in clip])))
    frames = [
        replace(clip[0], id=index, stamp_ns=clip[0].stamp_ns + index * period, rgb=shot.rgb)
        for index, shot in enumerate(shots)
    ]
    first, end = len(before), len(before) + len(fault)
    known = end + len(between or []) if fault else None
    return _gathered(name, expect, frames, shots, (first, end), known)


def _dropped(clip: Sequence[Frame], cutting: Cutting) -> Splice:
    """Frames left out in fast motion: the stamps tell of the gap."""
    shots = _shots(clip, 0, cutting.lead) + _shots(clip, cutting.lead + cutting.dropped, len(clip))
    frames = [
        replace(clip[shot.shows or 0], id=index, rgb=shot.rgb) for index, shot in enumerate(shots)
    ]
    name = f"{cutting.dropped} dropped frames"
    span = (cutting.lead, len(shots))
    return _gathered(name, Expect.NOTICED_OR_RIGHT, frames, shots, span, None)


def _gathered(
    name: str,
    expect: Expect,
    frames: list[Frame],
    shots: list[Shot],
    span: tuple[int, int],
    known: int | None,
) -> Splice:
    shows = tuple(shot.shows for shot in shots)
    turned = tuple(shot.upside_down for shot in shots)
    return Splice(name, expect, tuple(frames), shows, turned, *span, known)


def _wrong_intrinsics(clean: Splice) -> Splice | None:
    """The whole clip with a focal length that is 10 % too long; None where none is known."""

    def longer(camera: Camera | None) -> Camera | None:
        return replace(camera, fx=1.1 * camera.fx, fy=1.1 * camera.fy) if camera else None

    if clean.frames[0].camera is None:
        return None
    frames = tuple(replace(frame, camera=longer(frame.camera)) for frame in clean.frames)
    end = len(frames)
    name = "intrinsics wrong by 10 %"
    return replace(clean, name=name, expect=Expect.SAID, frames=frames, first=0, end=end)


def _shots(clip: Sequence[Frame], first: int, end: int) -> list[Shot]:
    return [Shot(clip[index].rgb, index) for index in range(first, min(end, len(clip)))]


def _changed(shots: Sequence[Shot], change: Callable[[UInt8], np.ndarray]) -> list[Shot]:
    return [replace(shot, rgb=np.asarray(change(shot.rgb), np.uint8)) for shot in shots]


def _blur(rgb: UInt8) -> np.ndarray:
    """A smear of a twelfth of the width, as of a camera that is jerked aside."""
    length = max(3, rgb.shape[1] // 12)
    return np.asarray(cv2.blur(rgb, (length, max(1, length // 8))))


def _out_of_order(count: int) -> list[int]:
    """A ring buffer that is read at the wrong place: blocks of four as 2, 0, 3, 1."""
    order = [4 * block + k for block in range(count // 4) for k in (2, 0, 3, 1)]
    return [*order, *range(len(order), count)]


def _fitted(rgb: UInt8, shape: tuple[int, ...]) -> UInt8:
    """The middle of a picture, at the size and aspect ratio of another."""
    height, width = shape[:2]
    factor = max(height / rgb.shape[0], width / rgb.shape[1])
    size = (max(width, round(rgb.shape[1] * factor)), max(height, round(rgb.shape[0] * factor)))
    whole = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    top, left = (whole.shape[0] - height) // 2, (whole.shape[1] - width) // 2
    return np.ascontiguousarray(whole[top : top + height, left : left + width]).astype(np.uint8)


def _thumbnail(rgb: UInt8) -> np.ndarray:
    gray = cv2.cvtColor(rgb, cv2.COLOR_RGB2GRAY)
    return np.asarray(cv2.resize(gray, (32, 24), interpolation=cv2.INTER_AREA), np.float32)
