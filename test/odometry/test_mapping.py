"""Points are found again in older keyframes where they are, and adjustment brings disturbed poses
back without changing the unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.geometry.lie import invert, rotation_angle, se3_exp
from flow3r_ros.odometry.keyframes import KeyframeMap
from flow3r_ros.odometry.mapping import adjust_map, find_again
from flow3r_ros.types import Float64
from test.odometry.plane import SCENE, exact_inverse
from test.odometry.test_keyframes import map_at

MOMENTS = [0, 4, 8, 12, 16]


def linked(poses: list[Float64] | None = None, error: float = 0.0) -> KeyframeMap:
    """A map whose keyframes were searched one by one, as they came."""
    whole = map_at(MOMENTS, poses=poses, error=error)
    for keyframe in whole.keyframes[1:]:
        find_again(whole, keyframe)
    return whole


def disturbed(size: float) -> list[Float64]:
    random = np.random.default_rng(4)
    return [
        SCENE.pose(index) @ se3_exp(size * random.normal(size=6) * (number > 0))
        for number, index in enumerate(MOMENTS)
    ]


def worst(map_: KeyframeMap) -> tuple[float, float]:
    errors = [invert(SCENE.pose(each.id)) @ each.pose for each in map_.keyframes]
    return (
        max(float(np.linalg.norm(error[:3, 3])) for error in errors),
        max(float(np.degrees(rotation_angle(error[:3, :3]))) for error in errors),
    )


def test_points_are_found_again_to_sub_pixel() -> None:
    map_ = map_at([0, 8])
    own = len(map_.keyframes[1].ids)
    search = find_again(map_, map_.keyframes[1])
    assert search.found > 0.6 * search.asked > 50
    assert len(map_.keyframes[1].ids) > own + 30
    assert len(map_.keyframes[0].ids) > 150
    for keyframe in map_.keyframes:
        assert np.all(np.diff(keyframe.ids) > 0)
        seen = map_.seen_from(keyframe.ids, keyframe.pose)
        lens = keyframe.view.lens
        where = seen.rays[:, :2] * [lens.fx, lens.fy] + [lens.cx, lens.cy]
        assert np.median(np.linalg.norm(where - keyframe.pixels, axis=1)) < 0.15


def test_another_view_and_a_turned_away_one_are_not_searched() -> None:
    away = SCENE.pose(8) @ se3_exp(np.array([0, 0, 0, 0, 1.5, 0]))
    map_ = map_at([0, 8], poses=[SCENE.pose(0), away])
    assert find_again(map_, map_.keyframes[1]).asked == 0


def test_disturbed_poses_come_back() -> None:
    map_ = linked(disturbed(0.004))
    before = worst(map_)
    for _ in range(3):
        result = adjust_map(map_, 0.5)
        assert result is not None
    after = worst(map_)
    assert after[0] < 0.3 * before[0]
    assert after[1] < 0.3 * before[1]
    assert result[1] == MOMENTS[1:]


def test_wrong_depths_come_back_in_their_unit() -> None:
    map_ = linked(error=0.1)
    for _ in range(3):
        adjust_map(map_, 0.5)
    ratios = []
    for keyframe in map_.keyframes:
        own = map_.points.hosts == keyframe.id
        pixels = keyframe.pixels[np.searchsorted(keyframe.ids, map_.points.ids[own])]
        ratios.append(map_.points.inverse[own] / exact_inverse(keyframe.id, keyframe.view, pixels))
    ratio = np.concatenate(ratios)
    unit = float(np.median(ratio))
    assert unit == pytest.approx(1.0, abs=0.05)
    assert np.median(np.abs(ratio / unit - 1.0)) < 0.03


def test_repeated_adjustments_keep_the_unit() -> None:
    map_ = linked()
    before = np.linalg.norm(map_.keyframes[-1].pose[:3, 3])
    for _ in range(6):
        adjust_map(map_, 0.5)
    assert np.linalg.norm(map_.keyframes[-1].pose[:3, 3]) == pytest.approx(before, rel=0.02)


def test_outlying_observations_are_taken_away() -> None:
    map_ = linked()
    newest = map_.keyframes[-1]
    foreign = newest.ids[newest.ids < 1000]
    assert len(foreign) >= 10
    bad = foreign[:5]
    rows = np.searchsorted(newest.ids, bad)
    newest.pixels[rows] += np.float32(20.0)
    adjust_map(map_, 0.5)
    assert not np.isin(bad, newest.ids).any()
    assert worst(map_)[0] < 0.02


def test_one_keyframe_has_nothing_to_adjust() -> None:
    assert adjust_map(map_at([0]), 0.5) is None


def test_only_a_lens_that_nobody_calibrated_gives_way_easily() -> None:
    """All of it is seen through a lens taken for 6 % too long; too little turns to be sure."""
    longer = {}
    for estimated in (False, True):
        map_ = linked()
        for keyframe in map_.keyframes:
            lens = replace(keyframe.view.lens, estimated=estimated)
            keyframe.view = replace(keyframe.view, lens=lens)
        map_.refocus(1.06, 0.0, 0.0)
        for keyframe in map_.keyframes:
            keyframe.view = replace(keyframe.view, focal=1.0)
        map_.focal = 1.0
        adjust_map(map_, 0.5)
        longer[estimated] = map_.focal
    assert longer[True] < 0.97
    assert abs(longer[True] - 1 / 1.06) < abs(longer[False] - 1 / 1.06)
