"""What the odometry remembers: the latest keyframes, the previous frame, and their depth on other
grids."""

from __future__ import annotations

import numpy as np

from flow3r_ros.odometry.views import ViewBuffer
from test.odometry.room import view_at


def test_the_buffer_keeps_the_latest_keyframes_and_gives_the_oldest_back() -> None:
    buffer = ViewBuffer(3)
    views = [view_at(np.eye(4), id_) for id_ in range(5)]
    gone = [buffer.add_keyframe(view) for view in views]
    assert gone == [None, None, None, views[0], views[1]]
    assert [view.id for view in buffer.keyframes] == [2, 3, 4]
    assert [view.id for view in buffer.companions(2)] == [3, 4]
    assert buffer.companions(0) == []
    assert len(buffer.companions(10)) == 3
    buffer.previous = views[-1]
    buffer.clear()
    assert (buffer.keyframes, buffer.previous) == ([], None)


def test_depth_on_another_grid_leaves_out_what_moves_or_is_not_sure() -> None:
    view = view_at(np.eye(4), 0)
    height, width = view.gray.shape
    view.moving[:, : width // 2] = True
    view.sigma[: height // 2] = view.inverse_depth[: height // 2]
    small = view.depth_on_grid(width // 2, height // 2)
    assert np.isnan(small[:, : width // 4]).all()
    assert np.isnan(small[: height // 4]).all()
    kept = small[height // 4 :, width // 4 :]
    truth = 1.0 / view.inverse_depth[height // 2 :: 2, width // 2 :: 2]
    assert np.isfinite(kept).all()
    np.testing.assert_allclose(kept, truth[: kept.shape[0], : kept.shape[1]], rtol=0.05)


def test_the_networks_own_depth_is_handed_back_on_its_own_grid_only() -> None:
    view = view_at(np.eye(4), 0)
    view.predicted_depth = np.full((30, 40), 7.0, np.float32)
    assert view.depth_on_grid(40, 30) is view.predicted_depth
    assert view.depth_on_grid(20, 15)[0, 0] != 7.0


def test_forgotten_depth_is_unknown_everywhere() -> None:
    view = view_at(np.eye(4), 0)
    view.moving[:] = True
    view.forget_depth()
    assert np.isnan(view.inverse_depth).all()
    assert np.isinf(view.sigma).all()
    assert not view.moving.any()
    assert np.isnan(view.depth_on_grid(10, 10)).all()
