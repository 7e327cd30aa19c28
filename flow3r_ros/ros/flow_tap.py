"""The network's factored flow, asked for only while somebody subscribes to `~/flow`.

Stands between odometry and network: while the flow is wanted, the window of a new keyframe carries
the pair of its two newest frames, there and back. What the odometry is told does not change.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from flow3r_ros.types import Frame, Prediction, Predictor, Window
from flow3r_ros.wire.flow import KeyframeFlow


class FlowTap:
    """A `Predictor` around another one; called in the back end's thread."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self.name = predictor.name
        self.uses_evidence = predictor.uses_evidence
        self.frames_per_window = predictor.frames_per_window
        self._wanted: Callable[[], bool] = lambda: False
        self._deliver: Callable[[KeyframeFlow], None] = lambda flow: None

    def connect(self, wanted: Callable[[], bool], deliver: Callable[[KeyframeFlow], None]) -> None:
        """From now on ask `wanted` at every window, and hand what was computed to `deliver`."""
        self._wanted, self._deliver = wanted, deliver

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """As the predictor's."""
        return self._predictor.input_size(width, height)

    def prepare(self, frame: Frame) -> None:
        """As the predictor's."""
        self._predictor.prepare(frame)

    def reset(self) -> None:
        """As the predictor's."""
        self._predictor.reset()

    def predict(self, window: Window) -> Prediction:
        """As the predictor's; the flow of the two newest frames beside it, where wanted."""
        if len(window.frames) < 2 or not self._wanted():
            return self._predictor.predict(window)
        source, target = window.frames[-2:]
        there, back = (source.id, target.id), (target.id, source.id)
        prediction = self._predictor.predict(replace(window, pairs=(there, back)))
        if {there, back} <= prediction.flow.keys():
            forward, backward = prediction.flow[there], prediction.flow[back]
            self._deliver(KeyframeFlow(source, target, forward, backward))
        return prediction
