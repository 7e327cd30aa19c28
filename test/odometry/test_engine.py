"""The engine as its callers see it: frames alone decide what comes out, whatever the network does,
and nothing grows."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.errors import Flow3rError
from flow3r_ros.odometry import backend
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.types import Frame, PoseSource, Prediction, TrackingState
from test.odometry.plane import (
    CAMERA,
    Network,
    bytes_of,
    frames_of,
    picture,
    position_error,
    settings,
    stepped,
)

WALK = list(range(40))
AND_BACK: list[int | None] = [*range(24), *[None] * 8, *range(4, 18)]


def resized() -> list[Frame]:
    """A camera that changes its picture's size on the way."""
    frames = frames_of(range(30))
    small = [
        replace(f, rgb=np.ascontiguousarray(f.rgb[::2, ::2]), camera=None) for f in frames[15:]
    ]
    return [*frames[:15], *small]


def upside_down() -> list[Frame]:
    """A camera that is put down in the dark and taken up the other way round: too far to follow."""
    frames = frames_of(AND_BACK)
    turned = [replace(f, rgb=np.ascontiguousarray(f.rgb[::-1, ::-1])) for f in frames[32:]]
    return [*frames[:32], *turned]


SEQUENCES: dict[str, Callable[[], list[Frame]]] = {
    "walk": lambda: frames_of(WALK),
    "restart": resized,
    "relocalisation": lambda: upside_down(),
}


@pytest.mark.parametrize("name", SEQUENCES)
def test_step_feed_and_a_slow_network_give_the_same_bytes(name: str) -> None:
    frames = SEQUENCES[name]()
    order = AND_BACK if name == "relocalisation" else WALK
    quick, _ = stepped(Network(order), frames)
    slow, _ = stepped(Network(order, seconds=0.03), frames)
    with Engine(Network(order), settings()) as engine:
        fed = [each for frame in frames for each in engine.feed(frame)] + engine.finish()
    assert bytes_of(slow) == bytes_of(quick)
    assert bytes_of(fed) == bytes_of(quick)
    if name == "restart":
        assert quick[-1].segment > 0
    if name == "relocalisation":
        assert any(e.pose_source is PoseSource.RELOCALISED for e in quick)


def test_poses_do_not_depend_on_who_asks_for_depth() -> None:
    frames = frames_of(WALK)
    asked, _ = stepped(Network(WALK), frames)
    with Engine(Network(WALK), settings()) as engine:
        unasked = [e for frame in frames for e in engine.step(frame, depth=frame.id >= 30)]
    assert [e.has_depth for e in unasked] == [e.keyframe or e.frame_id >= 30 for e in unasked]
    for one, other in zip(asked, unasked, strict=True):
        assert one.T_odom_cam.tobytes() == other.T_odom_cam.tobytes()
        assert one.covariance.tobytes() == other.covariance.tobytes()
    last, same = asked[-1].depth, unasked[-1].depth
    np.testing.assert_allclose(last, same, rtol=0.02, err_msg="steadied over fewer frames")


def test_a_walk_is_tracked_where_it_goes() -> None:
    estimates, engine = stepped(Network(WALK), frames_of(WALK))
    assert [e.frame_id for e in estimates] == WALK
    assert {e.tracking_state for e in estimates[1:]} == {TrackingState.TRACKING}
    assert max(position_error(e, 0, i) for i, e in enumerate(estimates)) < 0.02
    assert engine.pose_sources == {"first": 1, "pnp": 39}
    assert engine.seams > 0
    assert engine.windows_failed == 0
    assert engine.map is not None
    assert len(engine.map) > 0


def test_after_black_frames_the_known_place_is_found_again() -> None:
    estimates, _ = stepped(Network(AND_BACK), frames_of(AND_BACK))
    states = [e.tracking_state for e in estimates]
    assert states[24:28] == [TrackingState.DEGRADED] * 4
    assert states[28:32] == [TrackingState.LOST] * 4
    assert {e.segment for e in estimates} == {0}
    assert states[32:] == [TrackingState.RELOCALIZING, *[TrackingState.TRACKING] * 13]
    for estimate, index in list(zip(estimates, AND_BACK, strict=True))[34:]:
        assert index is not None
        assert position_error(estimate, 0, index) < 0.03


def fails(answer: Prediction, asked: int) -> Prediction:
    if asked > 1:
        raise Flow3rError("no memory left")
    return answer


def breaks(answer: Prediction, asked: int) -> Prediction:
    if asked > 1:
        raise RuntimeError("the device is gone")
    return answer


def nan(answer: Prediction, asked: int) -> Prediction:
    if asked == 1:
        return answer
    return replace(answer, local_points=np.full_like(answer.local_points, np.nan))


def yesterday(answer: Prediction, asked: int) -> Prediction:
    if asked == 1:
        return answer
    return replace(answer, frame_ids=tuple(id_ - 1000 for id_ in answer.frame_ids))


@pytest.mark.parametrize("mishap", [fails, breaks, nan, yesterday])
def test_the_front_end_goes_on_without_its_network(
    mishap: Callable[[Prediction, int], Prediction],
) -> None:
    estimates, engine = stepped(Network(WALK, mishap), frames_of(WALK))
    assert [e.frame_id for e in estimates] == WALK
    assert engine.windows_failed > 0
    assert max(position_error(e, 0, i) for i, e in enumerate(estimates)) < 0.05
    assert TrackingState.LOST not in {e.tracking_state for e in estimates}
    assert all(e.reason for e in estimates if e.tracking_state is TrackingState.DEGRADED)


def test_a_back_end_that_fails_is_said_and_starts_anew() -> None:
    def breaks_once(answer: Prediction, asked: int) -> Prediction:
        return breaks(answer, 2 if asked == 2 else 1)

    estimates, engine = stepped(Network(WALK, breaks_once), frames_of(WALK))
    said = [e for e in estimates if "back end" in e.reason]
    assert [e.tracking_state for e in said] == [TrackingState.DEGRADED]
    assert engine.windows_failed == 1
    assert estimates[-1].tracking_state is TrackingState.TRACKING


def test_a_back_end_that_fails_at_the_first_keyframe_is_asked_again() -> None:
    def breaks_first(answer: Prediction, asked: int) -> Prediction:
        return breaks(answer, 2 if asked == 1 else 1)

    estimates, _ = stepped(Network(WALK, breaks_first), frames_of(WALK[:8]))
    assert len(estimates) == 8
    assert estimates[0].tracking_state is TrackingState.INITIALIZING
    assert "back end" in estimates[0].reason
    assert estimates[-1].tracking_state is TrackingState.TRACKING


def test_a_back_end_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    released = threading.Event()

    def hangs(answer: Prediction, asked: int) -> Prediction:
        if asked == 2:
            released.wait(30.0)
        return answer

    monkeypatch.setattr(backend, "BUILD_TIMEOUT_S", 1.0)
    with Engine(Network(WALK, hangs), settings()) as engine:
        estimates = []
        for frame in frames_of(WALK):
            estimates += engine.step(frame)
            if any("back end" in each.reason for each in estimates):
                monkeypatch.setattr(backend, "BUILD_TIMEOUT_S", 60.0)
                released.set()
        assert len(estimates) == len(WALK)
        assert engine.windows_failed >= 1
    assert any(e.tracking_state is TrackingState.DEGRADED and "back end" in e.reason
               for e in estimates)  # fmt: skip
    assert TrackingState.LOST not in {e.tracking_state for e in estimates}


def test_bad_frames_are_counted_and_skipped() -> None:
    good = frames_of(range(12))
    late = 10_000
    stray = [
        replace(good[3], id=late, rgb=good[4].rgb),
        replace(good[2], id=late + 1),
        replace(good[4], id=late + 2, rgb=good[4].rgb[..., 0]),
        replace(good[4], id=late + 3, rgb=np.ascontiguousarray(good[4].rgb[::2, ::2])),
    ]
    estimates, engine = stepped(Network(WALK), [*good[:4], *stray, *good[4:]])
    assert engine.drops == {
        "repeated_stamp": 1,
        "non_monotonic_stamp": 1,
        "corrupt_image": 1,
        "resolution_change": 1,
    }
    assert len(estimates) + sum(engine.drops.values()) == engine.frames_in
    assert bytes_of(estimates) == bytes_of(stepped(Network(WALK), good)[0])


def test_a_repeated_picture_keeps_its_pose_and_loses_certainty() -> None:
    order = [*range(8), 7, 7, 7, 8, 9]
    estimates, _ = stepped(Network(order), frames_of(order))
    repeated = estimates[8:11]
    assert {e.pose_source for e in repeated} == {PoseSource.REPEATED}
    traces = [float(np.trace(e.covariance)) for e in estimates[7:11]]
    assert traces == sorted(traces)
    assert traces[-1] > traces[0]
    for estimate in repeated:
        assert np.array_equal(estimate.T_odom_cam, estimates[7].T_odom_cam)
    assert estimates[-1].tracking_state is TrackingState.TRACKING


def test_an_unknown_camera_is_estimated_and_no_frame_is_lost() -> None:
    blind = [replace(frame, camera=None) for frame in frames_of(range(16))]
    estimates, engine = stepped(Network(WALK), blind)
    assert [e.frame_id for e in estimates] == list(range(16))
    assert all(e.camera.estimated for e in estimates)
    assert engine.assumed_camera is not None
    assert engine.assumed_camera.fx == pytest.approx(CAMERA.fx, rel=0.05)


def test_a_reset_begins_anew_with_the_same_answer() -> None:
    frames = frames_of(range(12))
    with Engine(Network(WALK), settings()) as engine:
        first = [each for frame in frames for each in engine.step(frame)] + engine.finish()
        engine.reset()
        assert engine.frames_in == 0
        assert engine.finish() == []
        again = [each for frame in frames for each in engine.step(frame)] + engine.finish()
    assert bytes_of(first) == bytes_of(again)


def test_the_network_at_every_frame_answers_every_frame() -> None:
    network = Network(WALK)
    estimates, _ = stepped(network, frames_of(range(8)), settings(engine__network="every_frame"))
    assert network.asked >= 8
    assert {e.tracking_state for e in estimates[1:]} == {TrackingState.TRACKING}


def test_the_scale_is_on_everything() -> None:
    frames = frames_of(range(12))
    plain, _ = stepped(Network(WALK), frames)
    thrice, _ = stepped(Network(WALK), frames, settings(scale__source="fixed", scale__factor=3.0))
    for a, b in zip(plain, thrice, strict=True):
        np.testing.assert_allclose(3.0 * a.T_odom_cam[:3, 3], b.T_odom_cam[:3, 3])
        np.testing.assert_allclose(3.0 * a.depth, b.depth, rtol=1e-6)
        np.testing.assert_allclose(9.0 * a.covariance[:3, :3], b.covariance[:3, :3])
        np.testing.assert_allclose(3.0 * a.twist[:3], b.twist[:3])


def test_a_long_run_remembers_no_more_than_it_may() -> None:
    order = [*range(0, 60), *range(59, -1, -1)] * 2
    config = settings(engine__keyframes=20, cloud__max_voxels=5000)
    with Engine(Network(order), config) as engine:
        for frame in frames_of(order):
            engine.step(frame)
        engine.finish()
        assert len(engine._back._map) <= 20
        assert len(engine._front._relocaliser._keyframes) <= 20
        hosts = {each.id for each in engine._back._map.keyframes}
        assert set(engine._back._map.points.hosts.tolist()) <= hosts
        assert engine.map is not None
        assert len(engine.map) <= 5000
        assert engine.frames_in == 240
        assert engine.tracking_states["lost"] == 0


def test_a_closed_engine_leaves_no_thread() -> None:
    before = threading.active_count()
    stepped(Network(WALK), frames_of(range(3)))
    assert threading.active_count() == before
    assert picture(0).shape == (240, 320, 3)


def test_a_map_begins_with_the_lens_that_frames_are_seen_through() -> None:
    """As after a segment that was lost: what the lens proved to be is not lost with it."""
    with Engine(Network(WALK), settings()) as engine:
        engine.focal = 1.02
        engine.step(frames_of(WALK)[0])
        assert engine.focal == 1.02
