"""What happened along a run, from the estimates alone: segments, lost spans, relocalisations.

Only changes are kept, one `Span` for each stretch of frames that agree in state, segment and
reason, so memory follows what happened and not the length of the run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from flow3r_ros.types import Estimate, TrackingState


@dataclass(frozen=True)
class Span:
    """Consecutive estimates of one state, segment and reason: ids of the first and last frame, and
    how many estimates they are (dropped frames have none)."""

    first: int
    last: int
    frames: int
    state: TrackingState
    segment: int
    reason: str


@dataclass
class History:
    """The spans of one run, oldest first."""

    spans: list[Span] = field(default_factory=list)

    def add(self, estimate: Estimate) -> None:
        """Lengthen the last span, or begin a new one."""
        key = (estimate.tracking_state, estimate.segment, estimate.reason)
        last = self.spans[-1] if self.spans else None
        if last is not None and (last.state, last.segment, last.reason) == key:
            self.spans[-1] = replace(last, last=estimate.frame_id, frames=last.frames + 1)
        else:
            self.spans.append(Span(estimate.frame_id, estimate.frame_id, 1, *key))

    def segments(self) -> list[dict[str, Any]]:
        """`first`, `last` (frame ids) and `reason` of each segment: why it began, which is what the
        estimates around its beginning said; the first one begins with the run."""
        found: list[dict[str, Any]] = []
        for before, span in zip([None, *self.spans], self.spans, strict=False):
            if before is None or span.segment != before.segment:
                why = span.reason or (before.reason if before else "start")
                found.append({"first": span.first, "last": span.last, "reason": why})
            found[-1]["last"] = span.last
        return found

    def lost_spans(self) -> list[dict[str, Any]]:
        """`first`, `last` (frame ids) and `reason` of each stretch without a pose (LOST or
        RELOCALIZING); the reason is the first one that was given."""
        found: list[dict[str, Any]] = []
        for before, span in zip([None, *self.spans], self.spans, strict=False):
            if span.state.has_pose:
                continue
            goes_on = before is not None and not before.state.has_pose
            if goes_on and before is not None and before.segment == span.segment:
                found[-1]["last"] = span.last
                found[-1]["reason"] = found[-1]["reason"] or span.reason
            else:
                found.append({"first": span.first, "last": span.last, "reason": span.reason})
        return found

    def relocalisations(self) -> int:
        """How often a pose came back within the segment in which it was lost."""
        pairs = zip(self.spans, self.spans[1:], strict=False)
        return sum(
            not before.state.has_pose and after.state.has_pose and before.segment == after.segment
            for before, after in pairs
        )

    def as_rows(self) -> list[list[Any]]:
        """The spans as JSON can hold them."""
        return [
            [span.first, span.last, span.frames, span.state.value, span.segment, span.reason]
            for span in self.spans
        ]

    @classmethod
    def of_rows(cls, rows: Sequence[Sequence[Any]]) -> History:
        """What `as_rows` gave."""
        return cls(
            [
                Span(first, last, frames, TrackingState(state), segment, reason)
                for first, last, frames, state, segment, reason in rows
            ]
        )
