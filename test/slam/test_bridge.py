"""Pictures that nothing places are put where a smooth motion has them, between others only."""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.lie import rigid, rotation_angle, so3_exp
from flow3r_ros.slam.bridge import MOST, bridged
from flow3r_ros.types import Float64


def on_a_circle(id_: int) -> Float64:
    """Around a table, looking at its middle."""
    turn = so3_exp([0.0, 0.1 * id_, 0.0])
    return rigid(turn, turn @ [0.0, 0.0, -2.0])


def test_a_gap_on_a_smooth_way_is_closed_and_its_ends_are_not_gone_beyond() -> None:
    ids = [10, 12, 14, 16, 18, 20, 22, 24]
    poses = {id_: on_a_circle(id_) for id_ in ids if id_ not in (10, 16, 18, 24)}
    found = bridged(ids, poses)
    assert found.keys() == {16, 18}
    for id_, pose in found.items():
        true = on_a_circle(id_)
        assert rotation_angle(pose[:3, :3].T @ true[:3, :3]) < 1e-6
        assert np.linalg.norm(pose[:3, 3] - true[:3, 3]) < 0.02


def test_between_two_alone_it_goes_straight() -> None:
    found = bridged([0, 1, 2], {0: on_a_circle(0), 2: on_a_circle(2)})
    middle = (on_a_circle(0)[:3, 3] + on_a_circle(2)[:3, 3]) / 2
    assert np.allclose(found[1][:3, 3], middle)


def test_a_long_gap_stays_one() -> None:
    ids = list(range(MOST + 6))
    poses = {id_: on_a_circle(id_) for id_ in (0, 1, MOST + 3, MOST + 4, MOST + 5)}
    assert bridged(ids, poses) == {}
    poses[2] = on_a_circle(2)
    assert len(bridged(ids, poses)) == MOST
