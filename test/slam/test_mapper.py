"""The map as a whole: loops close and take drift away, nothing false closes, nothing grows."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from flow3r_ros import __version__
from flow3r_ros.config import SlamSettings
from flow3r_ros.geometry.lie import apply, invert, sim3, umeyama
from flow3r_ros.offline.resume import load_state
from flow3r_ros.paths import RESUME
from flow3r_ros.slam import map as map_module
from flow3r_ros.slam import mapper as module
from flow3r_ros.slam.mapper import MAX_WAITING, Mapper, MapState
from flow3r_ros.types import Float64
from test.slam.factory import ROUND, drifting, finished, way

pytest.importorskip("gtsam")
COUNT = ROUND + 8


def mapped(told: list[Float64], settings: SlamSettings | None = None, **how: object) -> MapState:
    with Mapper(settings or SlamSettings(enabled=True)) as mapper:
        for index, each in enumerate(told):
            mapper.take(finished(index, each, **how))  # type: ignore[arg-type]
        return mapper.finish()


def error(poses: list[Float64]) -> float:
    """Root mean square distance from the way, aligned by Sim(3), metres."""
    here = np.stack([each[:3, 3] for each in poses])
    true = np.stack([way(index)[:3, 3] for index in range(len(poses))])
    return float(np.sqrt(np.mean(np.sum((apply(umeyama(here, true), here) - true) ** 2, axis=1))))


@pytest.fixture(scope="module")
def looped() -> MapState:
    return mapped(drifting(COUNT))


def test_loops_take_the_drift_away(looped: MapState) -> None:
    told, state = drifting(COUNT), looped
    assert state.closed == len(state.loops) >= 2
    assert all(second - first >= ROUND - 4 for first, second in state.loops)
    assert state.keyframes == COUNT
    placed = [state.located[index].S_map_cam for index in range(COUNT)]
    assert error(placed) < 0.6 * error(told)


def test_a_map_goes_on_where_it_was_left(looped: MapState, tmp_path: Path) -> None:
    """Kept between two loops, as `flow3r run --resume` keeps it."""
    told = drifting(COUNT)
    with Mapper(SlamSettings(enabled=True)) as mapper:
        for index in range(ROUND + 3):
            mapper.take(finished(index, told[index]))
        before = mapper.finish().closed
        (tmp_path / RESUME).mkdir()
        (tmp_path / RESUME / "state").write_bytes(pickle.dumps({"mapper": mapper.remembered()}))
        (tmp_path / RESUME / "run.json").write_text(json.dumps({"version": __version__}))
    with Mapper(SlamSettings(enabled=True)) as mapper:
        mapper.restore(load_state(tmp_path, {})["mapper"])
        for index in range(ROUND + 3, COUNT):
            mapper.take(finished(index, told[index]))
        state, evidence = mapper.finish(), mapper.evidence()
    assert state.loops == looped.loops
    assert tuple((first, second) for first, second, _ in evidence) == state.loops
    assert all(18 <= loop.inliers <= loop.matches for _, _, loop in evidence)
    assert 0 < before < state.closed == looped.closed
    for index in range(COUNT):
        same = looped.located[index]
        assert np.array_equal(state.located[index].S_map_cam, same.S_map_cam)


def test_without_loops_the_map_is_the_odometry() -> None:
    told = drifting(ROUND // 2)
    state = mapped(told)
    assert state.closed == 0
    for index, each in enumerate(told):
        assert np.allclose(state.located[index].S_map_cam, each, atol=1e-9)


def test_the_same_corridor_twice_is_no_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pictures of a second round are those of the first, the way says they are 12 m off."""
    monkeypatch.setattr(map_module, "CANDIDATES", 1)
    told = drifting(COUNT, 0.0, 1.0)
    far = [sim3(1.0, np.eye(3), [0.5 * index, 0.0, 0.0]) @ each for index, each in enumerate(told)]
    state = mapped(far)
    assert state.closed == 0
    assert state.refused["contradicts the map"] >= 1


def test_a_segment_that_nothing_connects_is_joined_by_a_loop() -> None:
    shift = sim3(0.5, np.eye(3), [30.0, 5.0, 0.0])
    with Mapper(SlamSettings(enabled=True)) as mapper:
        for index in range(ROUND // 2 + 2):
            mapper.take(finished(index, way(index)))
        before = mapper.finish()
        assert before.closed == 0
        for index in range(3):
            told = shift @ way(index)
            told[:3, :3] *= 2.0
            mapper.take(finished(index, told, 100 + index, segment=1, unit=2.0))
        state = mapper.finish()
    assert state.closed >= 1
    assert len({each.island for each in state.located.values()}) == 1
    assert len(state.largest_part()) == state.keyframes
    for index in range(3):
        placed = state.located[100 + index].S_map_cam
        assert np.linalg.norm(placed[:3, 3] - way(index)[:3, 3]) < 0.25


def test_adjusted_keyframes_move_and_keep_what_loops_corrected(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    told = drifting(COUNT)
    with Mapper(SlamSettings(enabled=True)) as mapper:
        for index, each in enumerate(told):
            mapper.take(finished(index, each))
        before = mapper.finish()
        monkeypatch.setattr(map_module, "CANDIDATES", 0)
        again = {index: told[index] for index in range(COUNT - 5, COUNT)}
        last = told[-1] @ invert(way(COUNT - 1)) @ way(COUNT)
        mapper.take(finished(COUNT, last, adjusted=again))
        state = mapper.finish()
    for index in again:
        old, new = before.located[index].S_map_cam, state.located[index].S_map_cam
        assert np.allclose(old, new, atol=1e-6)


def test_the_map_stays_within_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(map_module, "CANDIDATES", 0)  # the bound alone
    state = mapped(
        [way(index) for index in range(60)], SlamSettings(enabled=True, max_keyframes=50)
    )
    assert state.keyframes == len(state.located) == 50
    assert {0, 59} <= state.located.keys()
    for index, located in state.located.items():
        assert np.allclose(located.S_map_cam, way(index), atol=1e-6)


def test_a_live_map_leaves_out_what_comes_too_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Event()
    made = module.MapKeyframe.of

    def slow(*arguments: object) -> object:
        gate.wait(60)
        return made(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(module.MapKeyframe, "of", slow)
    with Mapper(SlamSettings(enabled=True), live=True) as mapper:
        for index in range(MAX_WAITING + 4):
            mapper.take(finished(index, way(index)))
        gate.set()
        assert mapper.finish().keyframes == MAX_WAITING
        mapper.take(finished(30, way(30)))
        assert mapper.finish().left_out == 4
        mapper.reset()
        assert mapper.state == MapState()
