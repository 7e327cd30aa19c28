"""What a costmap would get of a drive through a corridor whose walls and boxes are known."""

from __future__ import annotations

import numpy as np
import pytest

from flow3r_ros.bench.corridor import BOXES, FLOOR, TOLERANCE, Cells, Corridor, drive, to_nearest
from flow3r_ros.config import Config

CELLS_OF_THE_WALL = np.stack(
    [np.full(400, 1.2), np.tile(np.linspace(-0.5, 0.4, 20), 20), np.repeat(np.arange(20) / 20, 20)],
    axis=1,
)


def test_cells_are_judged_by_the_nearest_true_surface() -> None:
    x, z, side, _ = BOXES[0]
    places = np.array([[1.2, 1.0], [x + side, z], [x + side + 0.15, z], [0.0, 1.0]])
    np.testing.assert_allclose(to_nearest(places), [0.0, 0.0, 0.15, 1.2], atol=1e-9)
    cells = Cells()
    wrong = CELLS_OF_THE_WALL - [0.5, 0.0, 0.0]
    cells.add(wrong, CELLS_OF_THE_WALL, np.zeros(3))
    assert cells.summary()["phantoms"] == 1.0
    assert cells.summary()["found"] == 0.0
    cells.add(CELLS_OF_THE_WALL, CELLS_OF_THE_WALL, np.zeros(3))
    assert cells.summary()["phantoms"] == 0.5
    assert cells.summary()["found"] == 1.0
    floor = CELLS_OF_THE_WALL.copy()
    floor[:, 1] = FLOOR - 0.1
    flat = Cells()
    flat.add(floor, CELLS_OF_THE_WALL, np.zeros(3))
    assert flat.summary()["cells"] == 0


def test_what_the_cloud_is_sure_of_is_where_it_says() -> None:
    network = pytest.importorskip("flow3r_ros.network.runner")
    corridor = Corridor(40, 320, 240)
    raw, shown, surest = (
        cells.summary()
        for cells in drive(corridor, network.open_predictor(Config().model), (-1.0, 0.2, 0.85))
    )
    assert shown["phantoms"] < 0.7 * raw["phantoms"], "filters pay"
    assert shown["found"] > 0.8
    assert surest["cells"] > 20
    assert surest["off_most"] < 1.5 * TOLERANCE  # the goal is TOLERANCE itself; .11 m measured
