"""What becomes of a frame that is made a keyframe."""

from __future__ import annotations

import numpy as np

from flow3r_ros.odometry.promotion import new_corners
from test.odometry.plane import BLACK, seen_at, view


def test_new_corners_keep_away_from_those_taken() -> None:
    where = seen_at(0)
    first = new_corners(where, np.empty((0, 2), np.float32), 60)
    more = new_corners(where, first, 120)
    assert 0 < len(first) <= 60
    assert len(first) + len(more) <= 120
    apart = np.linalg.norm(more[:, None] - first[None], axis=-1)
    assert apart.min() > 6
    assert len(new_corners(where, first, len(first))) == 0
    assert len(new_corners(view(BLACK), np.empty((0, 2), np.float32), 60)) == 0
