"""Suite `loops`: a loop is judged by truth, and what deceives does."""

from __future__ import annotations

from collections import Counter

import numpy as np

from flow3r_ros.bench.aliasing import CAMERA, REPEAT, TwinCorridor
from flow3r_ros.bench.loops import Swept, is_wrong
from flow3r_ros.geometry.lie import invert, rigid, sim3, so3_exp


def test_a_loop_is_judged_in_the_unit_of_its_map() -> None:
    first = rigid(so3_exp([0.0, 0.3, 0.0]), [1.0, 0.0, 2.0])
    second = first @ rigid(so3_exp([0.0, 0.2, 0.0]), [0.5, 0.0, 0.0])
    true = invert(first) @ second
    told = sim3(1.3, true[:3, :3], true[:3, 3] / 2.0)
    assert not is_wrong(told, 4.0, 2.0, first, second)
    assert is_wrong(told, 4.0, 5.0, first, second)
    assert is_wrong(told @ rigid(so3_exp([0.3, 0.0, 0.0]), np.zeros(3)), 4.0, 2.0, first, second)
    assert is_wrong(told, 4.0, 2.0, first, None)
    assert not is_wrong(told, 4.0, 2.0, None, None)


def test_a_row_names_the_frames_to_look_at() -> None:
    row = Swept([(3, 90), (4, 95)], [(4, 95)], 12, Counter({"no pose": 2})).row("a clip")
    assert row["median"] == 2
    assert row["note"] == "12 keyframes, 1 wrong; refused: 2 no pose; frames 3-90, 4-95"


def test_a_corridor_looks_the_same_after_a_stretch() -> None:
    case = TwinCorridor()
    period = round(REPEAT / case.step)
    first, same = (case.frame(index).rgb for index in (0, period))
    assert first.shape == (CAMERA.height, CAMERA.width, 3)
    assert np.mean(np.abs(first.astype(float) - same)) < 1.0
    apart = invert(case.poses()[0]) @ case.poses()[period]
    assert np.linalg.norm(apart[:3, 3]) > 0.9 * REPEAT
