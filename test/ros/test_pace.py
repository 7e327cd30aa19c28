"""Even thinning, on a clock of the test: what is taken lies evenly apart and is taken at once."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from flow3r_ros.ros.pace import Pace


def taken(period: float, step: float, count: int, most: float = 0.0) -> tuple[np.ndarray, float]:
    """Reception times of the images taken by an engine whose steps last `step` seconds, in the
    settled second half, and how long the longest of them waited."""
    pace = Pace(lambda: most)
    times, waited = [], 0.0
    free = 0.0
    waiting: float | None = None
    for index in range(count):
        at = index * period
        end = at + period
        pace.arrived(at)
        waiting, now = at, max(at, free)
        while waiting is not None and now < end:
            wait = pace.wait(waiting, now)
            if wait:
                now += wait
                continue
            free = now + step
            pace.stepped(waiting, step)
            if index > count / 2:
                times.append(waiting)
                waited = max(waited, now - waiting)
            waiting = None
    return np.array(times), waited


@pytest.mark.parametrize(("period", "step"), [(0.1, 0.05), (0.033, 0.05), (0.033, 0.11)])
def test_an_overloaded_engine_takes_evenly_what_it_can(period: float, step: float) -> None:
    times, waited = taken(period, step, 400)
    apart = np.array([later - earlier for earlier, later in pairwise(times)])
    wanted = max(step / period, 1.0)
    assert set(np.rint(apart / period)) <= {np.floor(wanted), np.ceil(wanted)}
    assert np.mean(apart) / period == pytest.approx(wanted, rel=0.02)
    assert waited < period


def test_an_idle_node_takes_a_few_a_second():
    times, _ = taken(0.033, 0.01, 400, most=5.0)
    assert np.mean(np.diff(times)) == pytest.approx(0.2, abs=0.02)


def test_the_last_image_of_a_burst_is_taken_in_the_end():
    pace = Pace(lambda: 0.0)
    for index in range(40):
        pace.arrived(index * 0.03)
        pace.stepped(index * 0.03, 0.1)
    wait = pace.wait(39 * 0.03 + 0.001, 39 * 0.03 + 0.002)
    assert 0 < wait < 0.2
    assert pace.wait(39 * 0.03 + 0.001, 39 * 0.03 + 0.003 + wait) == 0.0


def test_what_arrives_during_a_long_step_is_kept_evenly_where_steps_are_quick() -> None:
    most = 0.0
    pace = Pace(lambda: most)
    assert not pace.keeps(0.2, 0.0, 1), "how long a step takes is not known yet"
    for index in range(20):
        pace.stepped(index * 0.033, 0.03 if index % 5 else 0.6)
    assert pace.keeps(0.2, 0.1, 1)
    assert not pace.keeps(0.2, 0.15, 1)
    assert not pace.keeps(0.2, 0.1, 5)
    most = 5.0
    assert not pace.keeps(0.2, 0.1, 1), "fewer images are wanted anyway"
    slow = Pace(lambda: 0.0)
    for index in range(20):
        slow.stepped(index * 0.3, 0.3)
    assert not slow.keeps(0.2, 0.1, 1), "it would never be up to date"


def test_the_odd_long_step_does_not_thin_what_comes_after_it() -> None:
    pace = Pace(lambda: 0.0)
    for index in range(40):
        pace.arrived(index * 0.05)
        pace.stepped(index * 0.05, 0.03 if index % 8 else 0.6)
    assert pace.wait(40 * 0.05, 40 * 0.05 + 0.001) == 0.0
