"""The inference thread: latest wins, everything is counted, jobs never overlap a step, a reset
forgets."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import replace

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


class SlowEngine:
    """Takes its time, and notices when somebody else enters meanwhile."""

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds
        self.drops: Counter[str] = Counter()
        self.busy = threading.Lock()
        self.seen: list[int] = []
        self.resets = 0
        self.segments = [Segment(0, 0, "start")]

    def step(self, frame: Frame) -> list[Estimate]:
        assert self.busy.acquire(blocking=False)
        try:
            time.sleep(self.seconds)
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
            return [replace(estimate_of(frame), segment=segment)]
        finally:
            self.busy.release()

    def reset(self) -> None:
        assert self.busy.acquire(blocking=False)
        self.resets += 1
        self.drops = Counter()
        self.busy.release()


class Session:
    def __init__(self, seconds: float = 0.0) -> None:
        self.engine = SlowEngine(seconds)
        self.outcomes: list[Outcome] = []
        self.complaints: list[str] = []
        self.worker = Worker(
            self.engine, self.outcomes.append, lambda key, text: self.complaints.append(key)
        )

    def put(self, stamp: int) -> None:
        self.worker.put(lambda id_: Frame(id_, stamp, PIXELS), time.monotonic())

    def settle(self) -> None:
        end = time.monotonic() + 5
        while time.monotonic() < end:
            tally = self.worker.tally()
            if tally.received == tally.estimated + sum(tally.drops.values()):
                return
            time.sleep(0.005)
        pytest.fail(f"not everything is accounted for: {self.worker.tally()}")


@pytest.fixture
def make_session():
    sessions: list[Session] = []

    def make(seconds: float = 0.0) -> Session:
        sessions.append(Session(seconds))
        return sessions[-1]

    yield make
    for session in sessions:
        assert session.worker.stop(5.0)


def test_the_latest_frame_wins_and_the_others_are_counted(make_session):
    session = make_session(0.05)
    for stamp in range(100, 120):
        session.put(stamp)
        time.sleep(0.002)
    session.settle()
    tally = session.worker.tally()
    assert tally.received == 20
    assert tally.drops["busy"] >= 15
    assert session.outcomes[-1].estimate.stamp_ns == 119
    assert session.outcomes[-1].latency_ms >= session.outcomes[-1].engine_ms >= 50


def test_every_reason_is_counted(make_session):
    session = make_session()

    def broken(frame_id: int) -> Frame:
        raise FrameError("corrupt_image", "no pixels")

    session.worker.put(broken, time.monotonic())
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
    session = make_session(0.002)
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
        session.worker.post(session.worker.reset).result(5.0)
    stop.set()
    feeder.join()
    session.settle()
    assert session.engine.resets == 30
    assert "engine_error" not in session.worker.tally().drops
    assert len(set(session.engine.seen)) == len(session.engine.seen)


def test_the_exception_of_a_job_goes_to_its_caller(make_session):
    session = make_session()
    with pytest.raises(ZeroDivisionError):
        session.worker.post(lambda: 1 / 0).result(5.0)
    session.put(1)
    session.settle()
    assert session.worker.tally().estimated == 1
