"""Pieces of a map that were taken through two guesses of one lens are joined where one place was
seen from one spot, and only there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.config import SlamSettings
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert, rotation_angle, sim3_parts
from flow3r_ros.odometry.corners import Reference
from flow3r_ros.odometry.finished import Finished
from flow3r_ros.odometry.relocalisation import describe
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop, verify
from flow3r_ros.slam.mapper import Mapper, MapState
from flow3r_ros.slam.places import LEARN_FROM
from flow3r_ros.slam.turned import NO_TURN, verify_turned
from flow3r_ros.types import Camera
from test.geometry.views import render
from test.odometry.plane import reference_at
from test.odometry.room import view_at
from test.slam.factory import SECOND_NS, pose

SHORT, LONG = 0.8, 1.3
"""two guesses of the focal length, of the true one"""
STEP_DEG = 4.0
"""between keyframes"""


def finished_keyframe(
    turn_deg: float, x: float, focal: float, id_: int = 0, segment: int = 0, mirrored: bool = False,
    guessed: bool = True,
) -> Finished:  # fmt: skip
    """What the odometry tells of a keyframe through a lens that is `focal` times as long as the
    true one."""

    def wrong(camera: Camera) -> Camera:
        return replace(camera, fx=focal * camera.fx, fy=focal * camera.fy, estimated=guessed)

    at = pose(turn_deg, x)
    view, inverse = view_at(at, id_), 1.0 / render(at).depth
    tracking, rgb = view.tracking, view.frame.rgb
    if mirrored:
        tracking, rgb, inverse = (
            np.ascontiguousarray(each[:, ::-1]) for each in (tracking, rgb, inverse)
        )
    assert view.frame.camera is not None
    frame = replace(view.frame, rgb=rgb, stamp_ns=id_ * SECOND_NS, camera=wrong(view.frame.camera))
    view = replace(
        view, frame=frame, tracking=tracking, lens=wrong(view.lens), camera=wrong(view.camera)
    )
    depth = DepthMap(inverse.astype(np.float32), (0.1 * inverse).astype(np.float32))
    moving, nothing = np.zeros(inverse.shape, np.bool_), reference_at(0)
    reference = Reference(view, at, depth, moving, nothing.ids, nothing.pixels, nothing.points)
    return Finished(reference, describe(view), {}, segment)


def keyframe(turn_deg: float, x: float, focal: float, key: int = 0, **how: bool) -> MapKeyframe:
    return MapKeyframe.of(finished_keyframe(turn_deg, x, focal, key, **how), key, 0)


FIRST = keyframe(0.0, 0.0, SHORT)
BESIDE = [(keyframe(5.0, 0.05, SHORT, 1), invert(pose(0.0)) @ pose(5.0, 0.05))]


@pytest.mark.parametrize("x", [0.1, 2.0])
def test_the_lens_is_learned_from_the_turn(x: float) -> None:
    """Also where a way lies between the two, as far as the depths explain it."""
    second = keyframe(22.0, x, LONG, 2)
    assert isinstance(verify(FIRST, second, BESIDE), str)
    loop = verify_turned(FIRST, second, BESIDE)
    assert isinstance(loop, Loop), loop
    true = invert(pose(0.0)) @ pose(22.0, x)
    _, R, t = sim3_parts(loop.S_first_second)
    assert np.degrees(rotation_angle(R.T @ true[:3, :3])) < 2.0
    assert np.linalg.norm(t - true[:3, 3]) < 0.1 * FIRST.median_depth


def test_another_place_is_no_turn() -> None:
    assert verify_turned(FIRST, keyframe(75.0, 0.0, LONG, 2), BESIDE) == NO_TURN


def test_a_mirrored_place_is_no_turn() -> None:
    for turn_deg in (0.0, 22.0):
        second = keyframe(turn_deg, 0.0, LONG, 2, mirrored=True)
        assert verify_turned(FIRST, second, BESIDE) == NO_TURN


def test_a_turn_without_a_witness_is_no_loop() -> None:
    assert verify_turned(FIRST, keyframe(22.0, 0.1, LONG, 2), []) == "no second witness"
    elsewhere = [(each, S @ pose(20.0)) for each, S in BESIDE]
    refused = verify_turned(FIRST, keyframe(22.0, 0.1, LONG, 2), elsewhere)
    assert refused == "witnesses disagree"


def test_a_neighbour_confirms_through_a_guessed_lens_by_its_own_depth() -> None:
    """The second keyframe's depth leans: from the first one's spot that moves nothing, from the
    neighbour's, a way off, it would."""
    far = [(keyframe(5.0, 1.2, SHORT, 1), invert(pose(0.0)) @ pose(5.0, 1.2))]
    second = keyframe(22.0, 0.05, LONG, 2)
    lean = np.linspace(2.0, 0.5, second.inverse.shape[1], dtype=np.float16)
    leaning = replace(second, inverse=second.inverse * lean)
    assert isinstance(verify_turned(FIRST, leaning, far), Loop)


def joined(guessed: bool) -> MapState:
    """A look around, and after it another piece that begins in its middle."""
    with Mapper(SlamSettings(enabled=True)) as mapper:
        for id_ in range(LEARN_FROM):
            mapper.take(finished_keyframe(STEP_DEG * id_, 0.01 * id_, SHORT, id_, guessed=guessed))
        for id_ in range(LEARN_FROM, LEARN_FROM + 3):
            turn_deg = STEP_DEG * (id_ - LEARN_FROM) + 16.0
            mapper.take(finished_keyframe(turn_deg, 0.05, LONG, id_, segment=1, guessed=guessed))
        return mapper.finish()


def test_pieces_of_a_map_are_joined_through_a_guessed_lens() -> None:
    pytest.importorskip("gtsam")
    state = joined(guessed=True)
    assert state.closed >= 1
    assert {each.island for each in state.located.values()} == {0}


def test_a_given_lens_is_not_doubted() -> None:
    pytest.importorskip("gtsam")
    state = joined(guessed=False)
    assert state.closed == 0
    assert {each.island for each in state.located.values()} == {0, 1}
