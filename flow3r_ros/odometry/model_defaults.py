"""Settings that are left to the model: what its manifest says about window and resolution."""

from __future__ import annotations

from flow3r_ros.config import Config
from flow3r_ros.types import Predictor

LEAST_DEPTH_WIDTH = 336
"""width in pixels of estimated depth where the network's own grid is coarser: flow and triangulated
depth are worth more pixels than a small network has"""
FOUR_TO_THREE = (640, 480)
"""width and height of the image that `tracking.depth_width` speaks of"""


def fitted_to(predictor: Predictor, config: Config) -> Config:
    """The settings with the zeros of `engine.window` and `tracking.depth_width` filled in from the
    model.

    The other groups are those of `config` itself, not copies: what may change while the node runs
    changes here as well.
    """
    engine, tracking = config.engine, config.tracking
    if engine.window == 0:
        engine = engine.model_copy(update={"window": max(2, predictor.frames_per_window)})
    if tracking.depth_width == 0:
        width = max(LEAST_DEPTH_WIDTH, predictor.input_size(*FOUR_TO_THREE)[0])
        tracking = tracking.model_copy(update={"depth_width": width})
    return config.model_copy(update={"engine": engine, "tracking": tracking})
