"""The fault suite tells an honest odometry from one that lies, and its splices show what they
say."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from flow3r_ros.bench.memory import SMALL, small_config, small_pictures
from flow3r_ros.bench.plane_scene import PlanePredictor, PlaneScene
from flow3r_ros.errors import EvaluationError
from flow3r_ros.evaluation.faults import (
    UPSIDE_DOWN,
    Reference,
    judge,
    reference_of,
    run_faults,
)
from flow3r_ros.evaluation.faults_clips import Cutting, Expect, Splice, read_clip, splices
from flow3r_ros.evaluation.faults_network import FaultyNetwork
from flow3r_ros.geometry.lie import rigid, so3_exp
from flow3r_ros.geometry.trajectory import Trajectory
from flow3r_ros.types import Estimate, Frame, TrackingState, Window
from test.evaluation.factories import make_estimate

COUNT = 75
SCENE = PlaneScene()
DEGRADED, LOST, TRACKING = TrackingState.DEGRADED, TrackingState.LOST, TrackingState.TRACKING


@pytest.fixture(scope="module")
def clip() -> list[Frame]:
    """The swaying plane at 320x240, 10 Hz."""
    pictures = small_pictures(COUNT)
    return [Frame(i, 10**9 + i * 10**8, rgb, SMALL) for i, rgb in enumerate(pictures)]


@pytest.fixture(scope="module")
def cases(clip: list[Frame]) -> dict[str, Splice]:
    rng = np.random.default_rng(0)
    film = [Frame(i, i * 10**8, rng.integers(0, 255, (90, 200, 3), np.uint8)) for i in range(20)]
    return {case.name: case for case in splices(clip, film)}


def truth() -> Trajectory:
    stamps = 10**9 + np.arange(COUNT) * 10**8
    return Trajectory(stamps, np.stack([SCENE.pose(i) for i in range(COUNT)]))


def test_every_fault_of_the_issue_is_there(cases: dict[str, Splice], clip: list[Frame]) -> None:
    assert list(cases) == [
        "clean",
        "cut to another film",
        "jump in the same room",
        "black frames and back",
        "lens cap and elsewhere",
        "20 dropped frames",
        "frozen picture",
        "upside down",
        "exposure x2",
        "3 blurred frames",
        "frames out of order",
        "network: nan",
        "network: garbage",
        "network: yesterday",
        "intrinsics wrong by 10 %",
    ]
    for case in cases.values():
        assert [frame.id for frame in case.frames] == list(range(len(case.frames)))
        assert len(case.frames) == len(case.shows) == len(case.upside_down)
        assert (np.diff([frame.stamp_ns for frame in case.frames]) > 0).all()
        assert {frame.rgb.shape for frame in case.frames} == {(240, 320, 3)}
        untouched = range(case.known or 0, len(case.frames)) if case.known else range(case.first)
        for index in untouched:
            shown = case.shows[index]
            assert shown is not None
            np.testing.assert_array_equal(case.frames[index].rgb, clip[shown].rgb)
    assert cases["cut to another film"].shows[30:42] == (None,) * 12
    assert cases["cut to another film"].shows[42:44] == (30, 31), "back where it was"
    assert cases["frozen picture"].shows[28:37] == (28, 29, 29, 29, 29, 29, 29, 29, 36)
    assert cases["jump in the same room"].shows[29:31] == (29, 55)
    assert cases["frames out of order"].shows[29:35] == (29, 32, 30, 33, 31, 36)
    dropped = cases["20 dropped frames"]
    assert dropped.shows[29:31] == (29, 50)
    assert dropped.frames[30].stamp_ns - dropped.frames[29].stamp_ns == 21 * 10**8
    wrong = cases["intrinsics wrong by 10 %"].frames[0].camera
    assert wrong is not None
    assert wrong.fx == pytest.approx(1.1 * SMALL.fx)
    upside = cases["upside down"].frames[30].rgb
    np.testing.assert_array_equal(upside[::-1, ::-1], clip[30].rgb)
    assert cases["exposure x2"].frames[31].rgb.mean() > 1.5 * clip[31].rgb.mean()
    assert np.var(cases["3 blurred frames"].frames[32].rgb) < 0.5 * np.var(clip[32].rgb)


def test_the_control_keeps_its_stamps_so_that_truth_is_found_at_any_pace(clip: list[Frame]) -> None:
    uneven = [replace(f, stamp_ns=f.stamp_ns + 10**8 * (f.id // 3)) for f in clip]
    control = splices(uneven, clip)[0]
    assert [f.stamp_ns for f in control.frames] == [f.stamp_ns for f in uneven]


def test_without_intrinsics_none_are_wrong_and_short_clips_are_refused(clip: list[Frame]) -> None:
    bare = [replace(frame, camera=None) for frame in clip]
    assert all(case.expect is not Expect.SAID for case in splices(bare, clip))
    assert len(splices(clip[:40], clip)) == 15
    with pytest.raises(EvaluationError, match="a fault needs 36"):
        splices(clip[:30], clip)
    assert Cutting.of(1000) == Cutting(30, 12, 20, 25, 20)


def test_the_fastest_moment_is_where_the_fault_lies(clip: list[Frame]) -> None:
    still = [replace(frame, rgb=clip[0].rgb) for frame in clip]
    film = [*still, *clip[:30], *[replace(frame, rgb=clip[30].rgb) for frame in clip]]
    chosen = read_clip(iter(film))  # type: ignore[arg-type]
    assert [frame.id for frame in chosen] == list(range(len(chosen)))
    lead, dropped = 30, 20
    change = np.abs(
        chosen[lead].rgb.astype(float) - chosen[lead + dropped - 1].rgb.astype(float)
    ).mean()
    assert change > 10, "not where the camera stands"


# --- verdicts on estimates made to order ----------------------------------------------------------


def estimates_of(
    case: Splice, state_of: Callable[[int], TrackingState], follow: bool = True
) -> dict[int, Estimate]:
    """An odometry with true poses where it follows, and the last known one where it does not."""
    rng = np.random.default_rng(0)
    made, pose = {}, np.eye(4)
    for frame, shown, turned in zip(case.frames, case.shows, case.upside_down, strict=True):
        if shown is not None and (follow or frame.id < case.first):
            pose = SCENE.pose(shown) @ (UPSIDE_DOWN if turned else np.eye(4))
        state = state_of(frame.id)
        reason = "" if state is TRACKING else "a reason"
        made[frame.id] = replace(make_estimate(rng, frame.id, pose, state), reason=reason)
    return made


def reference() -> Reference:
    return Reference({i: SCENE.pose(i) for i in range(COUNT)}, 2.0, "truth")


def always(id_: int) -> TrackingState:
    return TRACKING


def test_who_says_what_happens_passes(cases: dict[str, Splice]) -> None:
    for name, case in cases.items():
        if case.expect in (Expect.SAID, Expect.GROWN):
            continue

        def honest(id_: int, case: Splice = case) -> TrackingState:
            nothing = case.shows[id_] is None
            return DEGRADED if nothing or case.first <= id_ < case.first + 1 else TRACKING

        state_of = always if case.expect in (Expect.NOTHING, Expect.HELD) else honest
        verdict = judge(case, estimates_of(case, state_of), reference())
        assert verdict.passed, (name, verdict)
        assert verdict.lies == 0
        if case.known is not None:
            assert verdict.recovered == 1


def test_who_goes_on_tracking_through_it_lies(cases: dict[str, Splice]) -> None:
    cut = judge(
        cases["cut to another film"],
        estimates_of(cases["cut to another film"], always),
        reference(),
    )
    assert not cut.passed
    assert (cut.noticed, cut.lies, cut.recovered) == (None, 12, 1)
    upside = cases["upside down"]
    right = judge(upside, estimates_of(upside, always), reference())
    assert right.passed
    assert right.right
    wrong = judge(upside, estimates_of(upside, always, follow=False), reference())
    assert not wrong.passed
    assert wrong.lies >= 12


def test_noticed_late_or_never_back_does_not_pass(cases: dict[str, Splice]) -> None:
    black = cases["black frames and back"]
    third = judge(
        black, estimates_of(black, lambda i: LOST if 32 <= i < 42 else TRACKING), reference()
    )
    assert (third.noticed, third.lies, third.passed, third.lost) == (3, 2, False, 10)
    second = judge(
        black, estimates_of(black, lambda i: LOST if 31 <= i < 42 else TRACKING), reference()
    )
    assert (second.noticed, second.lies, second.passed) == (2, 1, True)
    assert second.reason == "a reason"
    never = judge(black, estimates_of(black, lambda i: LOST if i >= 30 else TRACKING), reference())
    assert (never.recovered, never.passed) == (None, False)
    late = estimates_of(black, lambda i: LOST if 30 <= i < 57 else TRACKING)
    assert judge(black, late, reference()).recovered == 16
    assert not judge(black, late, reference()).passed


def test_a_new_segment_is_notice_but_no_return(cases: dict[str, Splice]) -> None:
    cut = cases["cut to another film"]
    made = {
        id_: replace(estimate, segment=int(id_ >= 30))
        for id_, estimate in estimates_of(cut, always).items()
    }
    verdict = judge(cut, made, reference())
    assert (verdict.noticed, verdict.lies, verdict.recovered) == (1, 0, None)


def test_a_frozen_picture_may_be_tracked_while_the_covariance_grows(
    cases: dict[str, Splice],
) -> None:
    frozen = cases["frozen picture"]
    made = estimates_of(frozen, always)
    assert judge(frozen, made, reference()).noticed is None
    growing = {
        id_: replace(estimate, covariance=estimate.covariance * 1.1**id_)
        for id_, estimate in made.items()
    }
    verdict = judge(frozen, growing, reference())
    assert verdict.passed
    assert verdict.noticed == 1


def test_brightness_must_not_lose_it_and_alarms_count(cases: dict[str, Splice]) -> None:
    bright = cases["exposure x2"]
    lost = judge(bright, estimates_of(bright, lambda i: LOST if i == 33 else TRACKING), reference())
    assert not lost.passed
    clean = cases["clean"]
    shy = judge(
        clean, estimates_of(clean, lambda i: DEGRADED if i % 10 == 5 else TRACKING), reference()
    )
    assert not shy.passed
    assert shy.alarms == pytest.approx(0.1, abs=0.02)
    waiting = judge(
        clean,
        estimates_of(clean, lambda i: TrackingState.INITIALIZING if i < 8 else TRACKING),
        reference(),
    )
    assert waiting.passed
    assert waiting.alarms == 0


def test_wrong_intrinsics_must_be_named(cases: dict[str, Splice]) -> None:
    case = cases["intrinsics wrong by 10 %"]
    silent = judge(case, estimates_of(case, always), reference())
    assert not silent.passed
    words = "residuals do not fit: check the intrinsics"
    said = {
        id_: replace(estimate, reason=words if id_ > 20 else "")
        for id_, estimate in estimates_of(case, always).items()
    }
    verdict = judge(case, said, reference())
    assert verdict.passed
    assert (verdict.noticed, verdict.reason) == (22, words)
    assert not judge(cases["clean"], said, reference()).passed, "a false accusation"


def test_truth_is_brought_into_the_unit_of_the_run(cases: dict[str, Splice]) -> None:
    clean = cases["clean"]
    turn = rigid(so3_exp([0.3, 0.1, -0.2]), (5.0, 1.0, 0.0))
    made = {}
    for id_, estimate in estimates_of(clean, always).items():
        pose = turn @ estimate.T_odom_cam
        pose[:3, 3] *= 0.25
        made[id_] = replace(estimate, T_odom_cam=pose)
    found = reference_of(clean.frames, made, truth())
    assert found.source == "truth"
    step = np.linalg.inv(found.poses[3]) @ found.poses[40]
    true = np.linalg.inv(SCENE.pose(3)) @ SCENE.pose(40)
    np.testing.assert_allclose(step[:3, 3], 0.25 * true[:3, 3], atol=1e-9)
    assert judge(clean, made, found).passed
    assert reference_of(clean.frames, made, None).source == "uninterrupted run"
    with pytest.raises(EvaluationError, match="gave no pose"):
        reference_of(clean.frames, estimates_of(clean, lambda _: LOST), None)


# --- the whole way through the engine -------------------------------------------------------------


class Knowing(PlanePredictor):
    """Knows each picture of the clip; a strange one looks to it like the last one it knew."""

    def __init__(self, clip: list[Frame]) -> None:
        self.moments = {frame.rgb.tobytes(): frame.id for frame in clip}
        self.last = 0
        super().__init__(SCENE, self._pose)

    def _pose(self, frame: Frame) -> np.ndarray:
        self.last = self.moments.get(frame.rgb.tobytes(), self.last)
        return SCENE.pose(self.last)


def test_the_engine_is_driven_through_every_splice(
    clip: list[Frame], cases: dict[str, Splice]
) -> None:
    chosen = [cases[name] for name in ("clean", "black frames and back", "network: nan")]
    told: list[str] = []
    result = run_faults(
        chosen, Knowing(clip), small_config(), truth(), lambda verdict: told.append(verdict.fault)
    )
    assert told == [case.name for case in chosen]
    assert result["faults"] == 2
    assert result["reference"] == "truth"
    assert result["false_alarms"] == 0
    assert [verdict["error"] for verdict in result["verdicts"]] == ["", "", ""]
    with pytest.raises(EvaluationError, match="not the clean control"):
        run_faults(chosen[1:], Knowing(clip), small_config())


def test_a_crash_is_a_verdict(clip: list[Frame], cases: dict[str, Splice]) -> None:
    bad = replace(cases["3 blurred frames"], frames=(object(),))  # type: ignore[arg-type]
    result = run_faults([cases["clean"], bad], Knowing(clip), small_config(), truth())
    assert result["passed"] == 0
    assert "AttributeError" in result["verdicts"][1]["error"]


def test_a_faulty_network_is_faulty_in_its_time_only(clip: list[Frame]) -> None:
    for fault in ("nan", "garbage", "yesterday"):
        network = FaultyNetwork(PlanePredictor(SCENE), fault, range(5, 8))
        windows = [Window((clip[i], clip[i + 1]), (i, i + 1)) for i in range(9)]
        answers = [network.predict(window) for window in windows]
        plain = [PlanePredictor(SCENE).predict(window) for window in windows]
        for window, answer, right in zip(windows, answers, plain, strict=True):
            assert answer.frame_ids == window.wanted
            same = np.array_equal(answer.local_points, right.local_points)
            assert same == (window.frames[-1].id not in range(5, 8)), fault
        if fault == "yesterday":
            np.testing.assert_array_equal(answers[5].local_points, plain[0].local_points)
        rotations = answers[5].poses[:, :3, :3]
        if fault == "garbage":
            np.testing.assert_allclose(np.linalg.det(rotations), 1.0)
        assert np.isnan(rotations).all() == (fault == "nan")
