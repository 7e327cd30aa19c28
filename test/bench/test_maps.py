"""The suites about maps: what they count, on keyframes of the ray-cast room."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.bench import map_hour
from flow3r_ros.bench.relocalisation import Found, Mapped
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.types import Frame
from test.slam.factory import ROUND, finished, way


def test_a_wrong_place_is_counted() -> None:
    frame = Frame(0, 0, np.zeros((1, 1, 3), np.uint8), None)
    mapped = Mapped([frame], Path(), {7: np.eye(4)}, depth=2.0)
    found = Found()
    found.add(0, mapped, [(300_000_000, 7, rigid(np.eye(3), [0.1, 0.0, 0.0]))])
    found.add(0, mapped, [(600_000_000, 7, rigid(so3_exp([0.0, 0.3, 0.0]), [0.0, 0.0, 0.0]))])
    found.add(0, mapped, [])
    row = found.row("a clip")
    assert np.isclose(row["median"], 200.0 / 3.0)
    assert "2 of 3, 1 wrong; after 0.45 s" in row["note"]


def test_a_map_of_looping_input_is_bounded() -> None:
    pytest.importorskip("gtsam")
    told = [finished(index, way(index)) for index in range(ROUND // 2 + 1)]
    result = map_hour.measure(told, 2.0, 140.0, bound=50)
    rows = {row["name"]: row for row in result["rows"]}
    assert rows["keyframes in the map"]["median"] == 50
    assert 1 <= rows["loops in the graph"]["median"] <= 50
    assert rows["work of the map"]["median"] > 0
