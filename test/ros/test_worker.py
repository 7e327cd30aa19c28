"""The inference thread: latest wins, everything is counted, jobs never overlap a step, a reset
forgets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from flow3r_ros.errors import FrameError
from flow3r_ros.ros.worker import Outcome, Worker
from flow3r_ros.types import (
    Camera,
    Estimate,
    Frame,
    PoseSource,
    ScaleState,
    Segment,
    TrackingState,
)

PIXELS = np.zeros((2, 2, 3), np.uint8)


def estimate_of(frame: Frame) -> Estimate:
    plane = np.ones((2, 2), np.float32)
    return Estimate(
        frame.id,
        frame.stamp_ns,
        "cam",
        np.eye(4),
        np.eye(6),
        plane,
        plane,
        plane > 2,
        PIXELS,
        Camera(2, 2, 1, 1, 0.5, 0.5),
        TrackingState.TRACKING,
        PoseSource.NETWORK,
        ScaleState.RELATIVE,
        np.inf,
    )


PATIENCE_S = 120.0
"""how long a test waits for what must come"""


class GatedEngine:
    """Steps while its gate is open, and notices when somebody else enters meanwhile."""

    def __init__(self) -> None:
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.drops: Counter[str] = Counter()
        self.busy = threading.Lock()
        self.seen: list[int] = []
        self.resets = 0
        self.segments = [Segment(0, 0, "start")]

    def step(self, frame: Frame, depth: bool = True) -> list[Estimate]:
        assert self.busy.acquire(blocking=False)
        try:
            self.entered.set()
            assert self.gate.wait(PATIENCE_S)
            self.seen.append(frame.id)
            if frame.stamp_ns == 13:
                raise RuntimeError("thirteen")
            if frame.stamp_ns == 14:
                self.drops["repeated_stamp"] += 1
                return []
            segment = int(frame.stamp_ns >= 15 and frame.stamp_ns < 100)
            if segment:
                self.segments = [
                    *self.segments[:1],
                    Segment(frame.id, frame.id, "time jumped back"),
                ]
            return [replace(estimate_of(frame), segment=segment, has_depth=depth)]
        finally:
            self.busy.release()

    def reset(self) -> None:
        assert self.busy.acquire(blocking=False)
        self.resets += 1
        self.drops = Counter()
        self.busy.release()


class Session:
    def __init__(
        self,
        most: Callable[[], float] = lambda: 0.0,
        depth: Callable[[], bool] = lambda: True,
    ) -> None:
        self.engine = GatedEngine()
        self.outcomes: list[Outcome] = []
        self.complaints: list[str] = []
        self.worker = Worker(
            self.engine, self.outcomes.append, lambda key, text: self.complaints.append(key), most,
            depth,
        )  # fmt: skip

    def put(self, stamp: int) -> None:
        self.worker.put(lambda id_: Frame(id_, stamp, PIXELS), time.monotonic())

    def put_and_hold(self, stamp: int) -> None:
        """A frame that the engine is at work on until `release`."""
        self.engine.entered.clear()
        self.engine.gate.clear()
        self.put(stamp)
        assert self.engine.entered.wait(PATIENCE_S)

    def release(self) -> None:
        """Let the engine go on, and wait until every frame is accounted for."""
        self.engine.gate.set()
        self.settle()

    def settle(self) -> None:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            tally = self.worker.tally()
            if tally.received == tally.estimated + sum(tally.drops.values()):
                return
            time.sleep(0.005)
        pytest.fail(f"not everything is accounted for: {self.worker.tally()}")


@pytest.fixture
def make_session():
    sessions: list[Session] = []

    def make(**arguments: Any) -> Session:
        sessions.append(Session(**arguments))
        return sessions[-1]

    yield make
    for session in sessions:
        session.engine.gate.set()
        assert session.worker.stop(PATIENCE_S)


def test_the_latest_frame_wins_and_the_others_are_counted(make_session):
    session = make_session()
    session.put_and_hold(100)
    for stamp in range(101, 120):
        session.put(stamp)
    session.release()
    tally = session.worker.tally()
    assert (tally.received, tally.estimated) == (20, 2)
    assert tally.drops == {"busy": 18}
    assert [outcome.estimate.stamp_ns for outcome in session.outcomes] == [100, 119]
    assert all(outcome.latency_ms >= outcome.engine_ms > 0 for outcome in session.outcomes)


def test_a_long_step_leaves_a_few_images_to_be_taken_after_it(make_session):
    session = make_session()
    session.put(100)
    session.settle()
    session.put_and_hold(101)
    begun = time.monotonic()
    for index in range(1, 41):  # as a camera of 30 Hz, without waiting for it
        frame = Frame(0, 101 + index, PIXELS)
        session.worker.put(lambda id_, f=frame: replace(f, id=id_), begun + index * 0.033)
    session.release()
    taken = [outcome.estimate.stamp_ns - 101 for outcome in session.outcomes[2:]]
    assert taken[-1] == 40, "the newest is always taken"
    assert len(taken) == 5
    assert set(np.diff(taken[:-1])) <= {3, 4}, "a tenth of a second apart"
    assert session.worker.tally().drops == {"busy": 35}


def test_images_that_are_not_taken_are_not_decoded(make_session):
    session = make_session()
    session.put_and_hold(100)
    decoded = []

    def decode(frame_id: int) -> Frame:
        decoded.append(frame_id)
        return Frame(frame_id, 100 + frame_id, PIXELS)

    for _ in range(9):
        session.worker.put(decode, time.monotonic())
    session.release()
    assert decoded == [9]


def test_who_wants_fewer_images_gets_the_newest_of_them(make_session):
    session = make_session(most=lambda: 2.0)
    session.put(100)
    session.settle()
    begun = time.monotonic()
    for stamp in range(101, 106):
        session.put(stamp)
    session.settle()
    assert time.monotonic() - begun > 0.3
    assert [outcome.estimate.stamp_ns for outcome in session.outcomes] == [100, 105]
    assert session.worker.tally().drops == {"idle": 4}


def test_depth_is_asked_for_while_somebody_wants_it(make_session):
    wanted = iter((False, True, False))
    session = make_session(depth=lambda: next(wanted))
    for stamp in (100, 101, 102):
        session.put(stamp)
        session.settle()
    assert [outcome.estimate.has_depth for outcome in session.outcomes] == [False, True, False]


def test_every_reason_is_counted(make_session):
    session = make_session()

    def broken(frame_id: int) -> Frame:
        raise FrameError("corrupt_image", "no pixels")

    session.worker.put(broken, time.monotonic())
    session.settle()
    for stamp in (12, 13, 14, 11):
        session.put(stamp)
        session.settle()
    tally = session.worker.tally()
    assert (tally.received, tally.estimated) == (5, 2)
    assert tally.drops == {"corrupt_image": 1, "engine_error": 1, "repeated_stamp": 1}
    assert session.complaints == ["corrupt_image", "engine_error"]


def test_a_new_segment_is_told_before_its_first_outcome(make_session):
    session = make_session()
    for stamp in (1, 2, 15, 16):
        session.put(stamp)
        session.settle()
    assert session.complaints == ["segment"]
    assert [outcome.estimate.segment for outcome in session.outcomes] == [0, 0, 1, 1]
    assert session.worker.tally().estimated == 4


def test_jobs_and_resets_never_overlap_a_step(make_session):
    session = make_session()
    stop = threading.Event()

    def feed() -> None:
        stamp = 100
        while not stop.is_set():
            session.put(stamp)
            stamp += 1
            time.sleep(0.001)

    feeder = threading.Thread(target=feed)
    feeder.start()
    for _ in range(30):
        session.worker.post(session.worker.reset).result(PATIENCE_S)
    stop.set()
    feeder.join()
    session.settle()
    assert session.engine.resets == 30
    assert "engine_error" not in session.worker.tally().drops
    assert len(set(session.engine.seen)) == len(session.engine.seen)


def test_the_exception_of_a_job_goes_to_its_caller(make_session):
    session = make_session()
    with pytest.raises(ZeroDivisionError):
        session.worker.post(lambda: 1 / 0).result(PATIENCE_S)
    session.put(1)
    session.settle()
    assert session.worker.tally().estimated == 1
