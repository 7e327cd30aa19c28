"""A run record keeps every number, few pictures, and survives the disk."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from flow3r_ros.errors import EvaluationError
from flow3r_ros.report.record import MAX_THUMBNAILS, RunRecord
from flow3r_ros.types import TrackingState
from test.evaluation.factories import make_record


def test_rows_poses_and_states_come_back(tmp_path: Path) -> None:
    record = make_record(frames=50)
    record.mapped, record.loops = record.trajectory(), record.stamps_ns[[[1, 40]]]
    record.save(tmp_path / "record.npz")
    again = RunRecord.load(tmp_path / "record.npz")
    np.testing.assert_array_equal(again.poses, record.poses)
    np.testing.assert_array_equal(again.stamps_ns, record.stamps_ns)
    np.testing.assert_array_equal(again.column("state"), record.column("state"))
    assert again.history.spans == record.history.spans
    assert len(again.history.spans) == 5
    np.testing.assert_array_equal(again.covariances, record.covariances)
    np.testing.assert_allclose(record.covariances[0, 0], np.diag([1e-4] * 3 + [1e-5] * 3))
    assert len(again.trajectory().poses) == 49, "the lost frame has no pose"
    assert again.summary == record.summary
    assert again.settings == record.settings
    assert again.stage_ms.keys() == record.stage_ms.keys()
    assert again.reference is not None
    assert again.mapped is not None
    np.testing.assert_array_equal(again.loops, record.loops)
    for ours, theirs in zip(again.thumbnails, record.thumbnails, strict=True):
        assert ours.index == theirs.index
        np.testing.assert_array_equal(ours.depth, theirs.depth)


@pytest.mark.parametrize("frames", [1, 7, 8, 9, 100])
def test_thumbnails_stay_few_and_span_the_run(frames: int) -> None:
    record = make_record(frames=frames)
    indices = [thumbnail.index for thumbnail in record.thumbnails]
    assert len(indices) <= MAX_THUMBNAILS
    assert len(indices) >= min(frames, MAX_THUMBNAILS // 2)
    assert len(set(np.diff(indices))) <= 1
    assert indices[0] == 0
    assert indices[-1] >= frames * 0.45 - 1


def test_columns_hold_what_the_estimates_said() -> None:
    record = make_record(frames=30)
    states = record.column("state")
    assert states[0] == list(TrackingState).index(TrackingState.INITIALIZING)
    assert record.column("stamp_s")[-1] == pytest.approx(2.9)
    assert np.isfinite(record.column("depth_median")).all()


def test_a_damaged_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "record.npz").write_bytes(b"nothing")
    with pytest.raises(EvaluationError, match="not a run record"):
        RunRecord.load(tmp_path / "record.npz")
    with pytest.raises(EvaluationError, match="is no output of a run"):
        RunRecord.load(tmp_path / "missing.npz")
    with pytest.raises(EvaluationError, match="is no folder"):
        RunRecord.load(tmp_path / "nowhere" / "record.npz")


def test_an_empty_run_has_no_trajectory() -> None:
    with pytest.raises(EvaluationError, match="holds no pose"):
        RunRecord("nothing").trajectory()
