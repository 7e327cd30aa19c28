"""The depth of a keyframe: measured and guessed stay apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.depth_map import DepthMap, unknown
from flow3r_ros.odometry.keyframe_depth import SINGLE_SIGMA, complete, match, measure
from flow3r_ros.odometry.keyframes import Keyframe, KeyframeMap
from test.odometry.plane import depth_at
from test.odometry.test_keyframes import keyframe_at, map_at


def blind(keyframe: Keyframe) -> Keyframe:
    """The same with nothing known of its depth."""
    nothing = unknown(*keyframe.view.gray.shape)
    return replace(keyframe, measured=nothing, depth=nothing)


def two_keyframes() -> tuple[KeyframeMap, Keyframe]:
    """A map whose older keyframe was guessed, not measured."""
    map_ = map_at([0, 8])
    older, new = map_.keyframes
    older.measured, new.measured, new.depth = (unknown(*older.view.gray.shape) for _ in range(3))
    return map_, new


def test_depth_is_triangulated_and_known_at_points() -> None:
    map_, new = two_keyframes()
    links = match(Matcher(336, sparse_fallback=False), new, map_.keyframes[:-1])
    assert list(links) == [(0, 8)]
    measure(new, links, map_)
    known = np.isfinite(new.measured.inverse)
    assert known.mean() > 0.2
    wrong = new.measured.inverse[known] / depth_at(8, new.view).inverse[known] - 1
    assert np.median(np.abs(wrong)) < 0.02


def test_what_was_guessed_is_not_carried_on() -> None:
    map_, new = two_keyframes()
    older = map_.keyframes[0]
    older.depth = DepthMap(np.full_like(older.depth.inverse, 9.0), older.depth.sigma)
    measure(new, match(Matcher(336, sparse_fallback=False), new, [older]), map_)
    known = np.isfinite(new.measured.inverse)
    assert known.any()
    assert (new.measured.inverse[known] < 3.0).all()


def test_one_picture_is_not_sure_and_a_refused_network_leaves_what_was_measured() -> None:
    keyframe = blind(keyframe_at(0, 0)[0])
    network = DepthMap(
        np.full_like(keyframe.depth.inverse, 0.5), np.full_like(keyframe.depth.inverse, 0.01)
    )
    complete(keyframe, network)
    np.testing.assert_array_equal(keyframe.depth.inverse, network.inverse)
    np.testing.assert_allclose(keyframe.depth.sigma, SINGLE_SIGMA * 0.5, rtol=1e-6)
    keyframe.measured = depth_at(0, keyframe.view)
    complete(keyframe, None)
    assert keyframe.depth is keyframe.measured


def test_a_network_of_another_unit_and_tilt_is_brought_onto_what_was_measured() -> None:
    keyframe = blind(keyframe_at(0, 0)[0])
    truth = depth_at(0, keyframe.view)
    tilt = np.linspace(0.3, 0.4, truth.inverse.shape[1], dtype=np.float32)[None]
    kept = np.zeros(truth.inverse.shape, bool)
    kept[::5, ::5] = True
    keyframe.measured = truth.where(kept)
    complete(keyframe, DepthMap(truth.inverse * tilt, truth.inverse * np.float32(0.1)))
    assert np.median(np.abs(keyframe.depth.inverse / truth.inverse - 1)) < 0.01
