"""What the diagnostics make of drops, ages, gaps and clocks; no process needed."""

from __future__ import annotations

import time
from collections import Counter
from typing import Any

import numpy as np
import pytest

from flow3r_ros.config import NodeSettings
from flow3r_ros.ros.diagnostics import Health
from flow3r_ros.ros.gaps import Gaps
from flow3r_ros.ros.worker import Outcome, Tally
from flow3r_ros.types import Frame
from test.ros.test_worker import PIXELS, estimate_of

NOW_NS = 1_700_000_000_000_000_000
OK, WARN, ERROR = b"\0", b"\1", b"\2"


def status(age_s: float, dropped: int, estimated: int, behind_s: float = 0.0) -> Any:
    """The status of an active node that estimated and dropped so many images in a second."""
    health = Health()
    tallies = Tally(), Tally(dropped + estimated, estimated, Counter(busy=dropped, idle=50))
    health.received(NOW_NS - int(behind_s * 1e9), NOW_NS)
    outcome = Outcome(estimate_of(Frame(1, 1, PIXELS)), 5.0, 5.0, time.monotonic(), tallies[1])
    health.note(outcome, 1e3 * age_s)
    arguments = (NOW_NS, "/flow3r", "active", NodeSettings(), None)
    for tally in tallies:
        message = health.message(*arguments, tally, 0, "")
    return message.status[0]


@pytest.mark.parametrize(
    ("age_s", "dropped", "estimated", "level", "words"),
    [
        (0.05, 1, 99, OK, "tracking"),
        (3.0, 541, 44, ERROR, "results are 3.0 s old"),
        (0.05, 541, 44, ERROR, "92 % of the images are not estimated"),
        (0.7, 0, 30, WARN, "results are 0.7 s old"),
        (0.05, 15, 15, WARN, "50 % of the images are not estimated"),
    ],
)
def test_drops_and_age_have_a_level(age_s, dropped, estimated, level, words):
    said = status(age_s, dropped, estimated)
    assert (said.level, words in said.message) == (level, True), said.message


def test_the_text_says_what_a_relative_scale_is_worth():
    assert status(0.05, 1, 99).message == (
        "tracking, scale relative: no metres, a filter may fuse rates of turn alone"
    )


def test_a_recording_on_another_clock_is_no_late_result():
    assert status(4e7, 0, 30, behind_s=4e7).level == OK
    values = {pair.key: pair.value for pair in status(0.2, 0, 30, behind_s=0.2).values}
    assert float(values["stamps behind the clock [s]"]) == pytest.approx(0.2)


@pytest.mark.parametrize("lost", [0.0, 0.3, 0.72])
def test_missing_images_are_counted_by_the_gaps_of_the_stamps(lost):
    random = np.random.default_rng(3)
    gaps, sent = Gaps(), 600
    arrived = [index for index in range(sent) if random.random() >= lost]
    for index in arrived:
        gaps.note(NOW_NS + index * 33_333_333 + int(random.uniform(-2e6, 2e6)))
    assert gaps.missing / sent == pytest.approx(lost, abs=0.2 * lost)
    assert gaps.share == pytest.approx(lost, abs=0.4 * lost)


def test_a_camera_that_pauses_misses_nothing():
    gaps = Gaps()
    for second in (0, 10, 30):
        for index in range(30):
            gaps.note(NOW_NS + second * 10**9 + index * 33_333_333)
    assert (gaps.missing, gaps.share) == (0, 0.0)


def test_a_driver_that_catches_up_after_a_stall_misses_nothing():
    gaps = Gaps()
    for index in range(300):
        late = 3 - index % 20 if index % 20 < 4 else 0  # three images wait for the fourth
        gaps.note(NOW_NS + (index + late) * 33_333_333 + (index % 20) * 500_000)
    assert abs(gaps.missing) <= 3
    assert gaps.share < 0.1


def test_a_stream_without_a_rhythm_misses_nothing():
    random, gaps, stamp = np.random.default_rng(5), Gaps(), NOW_NS
    for _ in range(300):
        stamp += int(random.uniform(0.08e9, 0.3e9))
        gaps.note(stamp)
    assert gaps.share < 0.1
