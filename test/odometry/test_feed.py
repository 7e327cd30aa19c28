"""Matching the next frame while the network is at work must not change a byte: `feed` gives what
`step` gives, whatever happens."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from flow3r_ros.config import load_config
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.types import Estimate, Frame
from test.odometry.oracle import Oracle, clip_of

WALK = {
    "seed": 2,
    "frames": 14,
    "width": 280,
    "height": 210,
    "layout": "room",
    "motion": "handheld",
    "movers": 1,
    "noise": 0.3,
}
MOTION = {"speed": 0.02, "turn": 0.015, "textures": "photographs"}
NOISE = {"depth_noise": 0.1, "pose_noise": 0.01}


def shown(indices: list[int]) -> tuple[list[Frame], list[int]]:
    """Frames with fresh ids and stamps that show the clip's pictures in this order, and the order
    by id."""
    clip = clip_of(**WALK, **MOTION)
    return [
        Frame(i, i * 100_000_000, clip.rgb[j], clip.camera) for i, j in enumerate(indices)
    ], indices


def both_ways(
    frames: list[Frame], order: list[int], **options: object
) -> tuple[list[Estimate], list[Estimate], int]:
    """Estimates by `step`, by `feed`, and how many frames `feed` left at the network."""
    overrides = {key.replace("__", "."): value for key, value in options.items() if "__" in key}
    lies = {key: value for key, value in options.items() if "__" not in key}
    results, late, counts = [], 0, []
    for pipelined in (False, True):
        engine = Engine(
            Oracle(clip_of(**WALK, **MOTION), order=order, **lies), load_config(None, overrides)
        )
        estimates, seen = [], Counter()
        for frame in frames:
            engine.add_odometry(frame.stamp_ns - 1, np.eye(4) + 0.01 * frame.id * np.eye(4, k=3))
            given = list(engine.feed(frame)) if pipelined else engine.step(frame)
            late += pipelined and not any(estimate.frame_id == frame.id for estimate in given)
            estimates += given
        estimates += engine.finish()
        seen.update(engine.drops)
        counts.append(
            (
                seen,
                engine.frames_in,
                engine.seams,
                engine.seams_refused,
                engine.windows_failed,
                engine.pose_sources,
            )
        )
        results.append(estimates)
    assert counts[0] == counts[1]
    return results[0], results[1], late


def assert_same(first: list[Estimate], second: list[Estimate]) -> None:
    assert [e.frame_id for e in first] == [e.frame_id for e in second]
    for a, b in zip(first, second, strict=True):
        assert a.T_odom_cam.tobytes() == b.T_odom_cam.tobytes(), a.frame_id
        assert a.depth.tobytes() == b.depth.tobytes(), a.frame_id
        assert a.moving.tobytes() == b.moving.tobytes(), a.frame_id
        assert np.array_equal(a.covariance, b.covariance), a.frame_id
        assert (a.pose_source, a.tracking_state, a.keyframe) == (
            b.pose_source,
            b.tracking_state,
            b.keyframe,
        ), a.frame_id
        assert a.scale_state == b.scale_state, a.frame_id


def test_feed_gives_the_bytes_of_step_and_does_go_ahead() -> None:
    stepped, fed, late = both_ways(*shown([*range(14), *range(12, 4, -1)]), **NOISE)
    assert len(fed) == 22
    assert_same(stepped, fed)
    assert late >= 8


@pytest.mark.parametrize("mishap", ["fails", "lies"])
def test_also_when_the_network_fails_or_lies(mishap: str) -> None:
    stepped, fed, _ = both_ways(*shown(list(range(14))), **NOISE, **{mishap: {3, 6, 7, 8, 11, 13}})
    assert_same(stepped, fed)


def test_also_when_the_camera_rests_and_pictures_repeat() -> None:
    stepped, fed, late = both_ways(*shown([0, 1, 2, 2, 2, 3, 4, 4, 5, 6, 6, 6, 6, 7, 8]), **NOISE)
    assert {e.pose_source.value for e in fed} >= {"repeated"}
    assert_same(stepped, fed)
    assert late > 0


def test_also_with_bad_frames_between() -> None:
    frames, order = shown(list(range(14)))
    frames[4] = Frame(4, frames[3].stamp_ns, frames[4].rgb, frames[4].camera)
    frames[8] = Frame(8, frames[8].stamp_ns, np.ascontiguousarray(frames[8].rgb[::2, ::2]))
    stepped, fed, _ = both_ways(frames, order, **NOISE)
    assert len(fed) == 12
    assert_same(stepped, fed)


def test_also_with_odometry_and_without_a_camera() -> None:
    frames, order = shown([*range(14), *range(12, 4, -1)])
    stepped, fed, _ = both_ways(frames, order, **NOISE, scale__source="odometry")
    assert_same(stepped, fed)
    blind = [Frame(frame.id, frame.stamp_ns, frame.rgb) for frame in frames]
    assert_same(*both_ways(blind, order, **NOISE)[:2])


def test_also_in_chunks_and_without_geometry() -> None:
    frames, order = shown(list(range(14)))
    assert_same(*both_ways(frames, order, **NOISE, engine__mode="chunked")[:2])
    stepped, fed, late = both_ways(frames, order, **NOISE, assist__enabled=False)
    assert_same(stepped, fed)
    assert late > 0, "the frame stays at the network until the next call"


def test_a_reset_forgets_the_frame_at_the_network() -> None:
    frames, order = shown(list(range(14)))
    engine = Engine(Oracle(clip_of(**WALK, **MOTION), order=order), load_config(None, {}))
    for frame in frames[:5]:
        list(engine.feed(frame))
    engine.reset()
    assert engine.finish() == []
    assert [e.frame_id for frame in frames for e in engine.step(frame)] == list(range(14))


def test_who_takes_an_estimate_sees_the_counts_of_its_own_time() -> None:
    frames, order = shown(list(range(14)))
    engine = Engine(Oracle(clip_of(**WALK, **MOTION), order=order, **NOISE), load_config(None, {}))
    assert all(
        engine.frames_in == estimate.frame_id + 1
        for frame in frames
        for estimate in engine.feed(frame)
    )
