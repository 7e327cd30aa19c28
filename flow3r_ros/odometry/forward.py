"""The network's thread: frames are encoded and windows predicted beside the geometry, one after the
other, in the order asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from time import perf_counter

import numpy as np

from flow3r_ros.errors import Flow3rError
from flow3r_ros.geometry.lie import nearest_rotation
from flow3r_ros.types import Frame, Prediction, Predictor, Window

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answer:
    """Geometry of a window with proper rotations (None: the forward failed), and the milliseconds
    that took, encoding included."""

    prediction: Prediction | None
    milliseconds: float


class Forward:
    """Runs a predictor in one thread of its own."""

    def __init__(self, predictor: Predictor) -> None:
        self._predictor = predictor
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="network")

    def prepare(self, frame: Frame) -> Future[float]:
        """Encode a frame ahead of the window it belongs to; the milliseconds it took."""
        return self._thread.submit(self._prepare, frame)

    def predict(self, window: Window, encoded: Sequence[Future[float]]) -> Future[Answer]:
        """Predict a window whose new frames were given to `prepare`; a failed forward is logged,
        not raised."""
        return self._thread.submit(self._predict, window, encoded)

    def _prepare(self, frame: Frame) -> float:
        start = perf_counter()
        self._predictor.prepare(frame)
        return 1e3 * (perf_counter() - start)

    def _predict(self, window: Window, encoded: Sequence[Future[float]]) -> Answer:
        start, before = perf_counter(), 0.0
        try:
            before = sum(future.result() for future in encoded)
            prediction = _with_rotations(self._predictor.predict(window))
        except Flow3rError as error:
            log.warning("window %s failed: %s", [frame.id for frame in window.frames], error)
            prediction = None
        return Answer(prediction, before + 1e3 * (perf_counter() - start))


def _with_rotations(prediction: Prediction) -> Prediction:
    poses = np.array(prediction.poses, dtype=np.float64)
    for pose in poses:
        if np.isfinite(pose).all():
            pose[:3, :3] = nearest_rotation(pose[:3, :3])
    return replace(prediction, poses=poses)
