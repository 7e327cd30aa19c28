"""The door: disorder is dropped by name, a stream that starts over begins a new segment."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.errors import FrameError
from flow3r_ros.odometry.input import Input
from flow3r_ros.types import Frame
from test.odometry.plane import CAMERA, DEPTH_WIDTH, PERIOD_NS, frame_of, picture

SECOND = 1_000_000_000


def door() -> Input:
    """One that has let frame 30 in."""
    input_ = Input(DEPTH_WIDTH)
    input_.admit(frame_of(30, picture(0)))
    return input_


def later(count: int, **changes: object) -> Frame:
    return replace(frame_of(30 + count, picture(count)), **changes)  # type: ignore[arg-type]


def refused(input_: Input, frame: Frame) -> str:
    with pytest.raises(FrameError) as caught:
        input_.admit(frame)
    assert str(frame.id) in str(caught.value)
    return caught.value.reason


def test_a_frame_comes_at_the_sizes_its_readers_want() -> None:
    view = door().admit(later(1))
    assert view.tracking.shape == (240, 320)
    assert view.gray.shape[1] == view.camera.width == DEPTH_WIDTH
    np.testing.assert_allclose(view.ratio, [320 / DEPTH_WIDTH] * 2, rtol=0.01)
    assert view.lens.fx == pytest.approx(CAMERA.fx)


def test_disorder_is_dropped_by_name() -> None:
    input_ = door()
    stamp = frame_of(30, picture(0)).stamp_ns
    assert refused(input_, later(1, stamp_ns=stamp)) == "repeated_stamp"
    assert refused(input_, later(1, stamp_ns=stamp - PERIOD_NS)) == "non_monotonic_stamp"
    assert refused(input_, later(1, rgb=picture(1)[..., 0])) == "corrupt_image"
    assert refused(input_, later(1, rgb=picture(1).astype(np.float32))) == "corrupt_image"
    input_.admit(later(1))
    assert input_.restarted == ""


def test_the_second_frame_of_another_size_starts_anew() -> None:
    input_ = door()
    small = np.ascontiguousarray(picture(1)[::2, ::2])
    assert refused(input_, later(1, rgb=small, camera=None)) == "resolution_change"
    input_.admit(later(2, rgb=small, camera=None))
    assert "320x240 to 160x120" in input_.restarted
    input_.admit(later(3, rgb=small, camera=None))
    assert input_.restarted == ""


def test_a_stray_size_changes_nothing() -> None:
    input_ = door()
    small = np.ascontiguousarray(picture(1)[::2, ::2])
    assert refused(input_, later(1, rgb=small, camera=None)) == "resolution_change"
    input_.admit(later(2))
    assert input_.restarted == ""


def test_a_recording_that_starts_over_is_noticed_at_the_second_frame() -> None:
    input_ = door()
    back = later(0).stamp_ns - SECOND
    assert refused(input_, later(1, stamp_ns=back)) == "time_jumped_back"
    input_.admit(later(2, stamp_ns=back + PERIOD_NS))
    assert "started over" in input_.restarted


@pytest.mark.parametrize(("factor", "anew"), [(1.005, False), (1.05, True)])
def test_a_lens_may_focus_but_not_be_another(factor: float, anew: bool) -> None:
    input_ = door()
    input_.admit(later(1, camera=replace(CAMERA, fx=factor * CAMERA.fx, fy=factor * CAMERA.fy)))
    assert bool(input_.restarted) is anew


def test_a_camera_that_is_no_longer_told_is_still_the_same() -> None:
    input_ = door()
    view = input_.admit(later(1, camera=None))
    assert input_.restarted == ""
    assert input_.given is not None
    assert view.lens.fx == pytest.approx(CAMERA.fx)
