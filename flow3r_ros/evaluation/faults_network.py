"""A network that goes wrong for a while: not a number, garbage, the answer to an older window."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import numpy as np

from flow3r_ros.types import Frame, Prediction, Predictor, Window

REMEMBERED = 8
"""answers that are kept; the oldest is yesterday's"""


class FaultyNetwork:
    """A predictor that answers as `inner` does, but wrongly for windows whose newest frame is in
    `frames`.

    Args:
        inner: the network that is right.
        fault: `nan` (points, confidence and poses are), `garbage` (random points and poses, sure of
            themselves), `yesterday` (the oldest remembered answer, under the ids of this window).
        frames: frame ids.
    """

    uses_evidence: bool
    frames_per_window: int

    def __init__(self, inner: Predictor, fault: str, frames: range) -> None:
        self._inner = inner
        self._fault = fault
        self._frames = frames
        self._answers: deque[Prediction] = deque(maxlen=REMEMBERED)
        self.name = f"{inner.name} ({fault})"
        self.uses_evidence = inner.uses_evidence
        self.frames_per_window = inner.frames_per_window

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """As `inner`."""
        return self._inner.input_size(width, height)

    def prepare(self, frame: Frame) -> None:
        """As `inner`."""
        self._inner.prepare(frame)

    def reset(self) -> None:
        """Forget the remembered answers, too."""
        self._answers.clear()
        self._inner.reset()

    def predict(self, window: Window) -> Prediction:
        """The answer of `inner`, spoilt in its time."""
        answer = self._inner.predict(window)
        newest = max(frame.id for frame in window.frames)
        if newest not in self._frames:
            self._answers.append(answer)
            return answer
        if self._fault == "yesterday":
            return self._yesterday(answer)
        rng = np.random.default_rng(newest)
        if self._fault == "nan":
            nothing = np.full_like(answer.confidence, np.nan)
            points = np.full_like(answer.local_points, np.nan)
            return replace(
                answer,
                local_points=points,
                confidence=nothing,
                poses=np.full_like(answer.poses, np.nan),
            )
        points = rng.uniform(-5, 5, answer.local_points.shape).astype(np.float32)
        points[..., 2] = np.abs(points[..., 2])
        poses = np.tile(np.eye(4), (len(answer.poses), 1, 1))
        poses[:, :3, :3] = [np.linalg.qr(rng.normal(size=(3, 3)))[0] for _ in poses]
        poses[:, :3, :3] *= np.linalg.det(poses[:, :3, :3])[:, None, None]
        poses[:, :3, 3] = rng.normal(size=(len(poses), 3))
        sure = np.ones_like(answer.confidence)
        return replace(answer, local_points=points, confidence=sure, poses=poses)

    def _yesterday(self, answer: Prediction) -> Prediction:
        """The oldest remembered answer about as many frames; today's where there is none."""
        same = [old for old in self._answers if len(old.frame_ids) == len(answer.frame_ids)]
        return replace(same[0], frame_ids=answer.frame_ids) if same else answer
