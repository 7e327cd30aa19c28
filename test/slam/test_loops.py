"""A place seen again is recognised with its relative pose; what only looks like it is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from flow3r_ros.geometry.lie import invert, rotation_angle, sim3_parts
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop, verify
from flow3r_ros.slam.places import LEARN_FROM, Places
from flow3r_ros.types import Float64
from test.slam.factory import ROUND, keyframe, way


def beside(index: int, key: int) -> list[tuple[MapKeyframe, Float64]]:
    return [(keyframe(index + 1, key + 1), invert(way(index)) @ way(index + 1))]


def test_a_place_seen_again_in_another_unit() -> None:
    second = keyframe(ROUND - 1, 90, unit=1.25)
    loop = verify(keyframe(1, 1), second, beside(1, 1))
    assert isinstance(loop, Loop), loop
    true = invert(way(1)) @ way(ROUND - 1)
    scale, R, t = sim3_parts(loop.S_first_second)
    assert abs(scale - 1.25) < 0.1
    assert np.degrees(rotation_angle(R.T @ true[:3, :3])) < 1.0
    assert np.linalg.norm(t - true[:3, 3]) < 0.1
    assert loop.inliers > 0.5 * loop.matches
    assert loop.likeness > 0.4


def test_the_unit_is_that_of_near_points() -> None:
    """A network's first depth puts what is far too near; a way is measured by what is near."""
    second = keyframe(ROUND - 1, 90)
    inverse = second.inverse.astype(np.float32)
    near = np.nanmedian(inverse)
    bent = np.where(inverse < near, near * (inverse / near) ** 0.5, inverse).astype(np.float16)
    loop = verify(keyframe(1, 1), replace(second, inverse=bent), beside(1, 1))
    assert isinstance(loop, Loop), loop
    assert abs(np.log(sim3_parts(loop.S_first_second)[0])) < 0.02


def test_other_places_are_refused() -> None:
    there = keyframe(ROUND // 2, 50)
    assert isinstance(verify(keyframe(0, 0), there, beside(0, 0)), str)


def test_a_mirrored_room_is_another_room() -> None:
    refused = {verify(keyframe(i, i), keyframe(i, 90, mirrored=True), beside(i, i)) for i in (0, 6)}
    assert all(isinstance(each, str) for each in refused), refused


def test_one_witness_is_not_enough() -> None:
    second = keyframe(ROUND - 1, 90)
    assert verify(keyframe(1, 1), second, []) == "no second witness"
    elsewhere = [(keyframe(2, 2), invert(way(1)) @ way(2) @ way(9))]
    assert verify(keyframe(1, 1), second, elsewhere) == "witnesses disagree"


def test_places_find_their_like_once_there_is_a_vocabulary() -> None:
    places = Places()
    for index in range(ROUND // 2):
        alike = places.alike(keyframe(index).descriptors, set(range(50)), 3)
        assert bool(alike) == (index >= LEARN_FROM)
        places.add(index, keyframe(index).descriptors)
    assert ROUND // 2 >= LEARN_FROM
    best = places.alike(keyframe(ROUND - 2).descriptors, set(range(50)), 3)
    assert set(best) & {1, 2, 3}
    places.remove(best[0])
    assert best[0] not in places.alike(keyframe(ROUND - 2).descriptors, set(range(50)), 3)
    assert places.alike(keyframe(0).descriptors, {7}, 3) == [7]
