"""A node process for tests: everything real, except that the network's weights are replaced by the
exact answer for a panning wall.

python -m test.ros.plane_node [--step-seconds S | --turns-after N] --ros-args ...
"""

from __future__ import annotations

import sys
import time

import numpy as np

from flow3r_ros.bench.memory import there_and_back
from flow3r_ros.config import Config
from flow3r_ros.ros.loading import Loaded, engine_of
from flow3r_ros.types import Frame, Prediction, Window
from test.ros.scene import DEPTH, STEP


class WallPredictor:
    """A frontal wall at `DEPTH`, seen by a camera that moves `STEP` to the right with every frame,
    and to and fro where it turns after some frames."""

    name = "wall"
    uses_evidence = False
    frames_per_window = 4

    def __init__(self, seconds: float, turns_after: int = 0) -> None:
        self.seconds, self.turns_after = seconds, turns_after
        self.begun = False

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        return 84, round(84 * height / width / 14) * 14

    def prepare(self, frame: Frame) -> None:
        pass

    def reset(self) -> None:
        pass

    def predict(self, window: Window) -> Prediction:
        if not self.begun:
            print("the first step begins", flush=True)  # noqa: T201 - a test waits for it
        self.begun = True
        time.sleep(self.seconds)
        rgb, camera = window.frames[0].rgb, window.frames[0].camera
        height, width = rgb.shape[:2]
        w, h = self.input_size(width, height)
        fx = camera.fx * w / width if camera else 0.9 * w
        x = (np.arange(w) - (w - 1) / 2) / fx * DEPTH
        y = (np.arange(h) - (h - 1) / 2) / fx * DEPTH
        points = np.stack([*np.meshgrid(x, y), np.full((h, w), DEPTH)], axis=-1).astype(np.float32)
        n = len(window.wanted)
        poses = np.tile(np.eye(4), (n, 1, 1))
        begin = self.moment(window.frames[0].id)
        poses[:, 0, 3] = [STEP * (self.moment(id_) - begin) for id_ in window.wanted]
        return Prediction(
            window.wanted, np.tile(points, (n, 1, 1, 1)), np.full((n, h, w), 0.9, np.float32), poses
        )

    def moment(self, id_: int) -> int:
        """Number of the picture of the pan that a frame shows."""
        return there_and_back(id_, self.turns_after + 1) if self.turns_after else id_


def load(config: Config, seconds: float, turns_after: int = 0) -> Loaded:
    engine, mapper = engine_of(WallPredictor(seconds, turns_after), config)
    card = ("wall", "0" * 64, "Apache-2.0", "cpu")
    return Loaded(engine, *card, lambda: 0.0, engine.close, mapper=mapper)


if __name__ == "__main__":
    from flow3r_ros.ros.process import main

    arguments, seconds, turns_after = sys.argv, 0.0, 0
    if arguments[1:2] == ["--step-seconds"]:
        seconds, arguments = float(arguments[2]), [arguments[0], *arguments[3:]]
    if arguments[1:2] == ["--turns-after"]:
        turns_after, arguments = int(arguments[2]), [arguments[0], *arguments[3:]]
    sys.exit(main(arguments, lambda config: load(config, seconds, turns_after)))
