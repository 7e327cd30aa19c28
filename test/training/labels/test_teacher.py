"""Flow teachers: right where the truth is known, silent where they cannot know, and counted."""

from __future__ import annotations

from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path

import cv2
import numpy as np
import pytest

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.flow import resize_flow
from flow3r_ros.training.labels import teachers as flow_teacher
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.labels.labelling import label
from flow3r_ros.training.labels.teacher import content_options
from flow3r_ros.training.labels.teachers import (
    AgreeingTeachers,
    DisTeacher,
    GeometricTeacher,
    open_teacher,
)
from test.training.clip_factory import clip_of, scene, write_images


def median_error(label: FlowLabel, made, i: int, j: int) -> float:
    truth, covisible = made.flow(i, j)
    h, w = covisible.shape
    wrong = np.linalg.norm(resize_flow(label.displacement, w, h) - truth, axis=-1)
    return float(np.median(wrong[covisible & (cv2.resize(label.covisibility, (w, h)) > 0.5)]))


def test_dis_flow_is_close_to_the_truth() -> None:
    made = scene()
    label = DisTeacher().flow(clip_of(made), 0, 2)
    assert label.reason == ""
    motion = float(np.median(np.linalg.norm(made.flow(0, 2)[0], axis=-1)))
    assert motion > 3
    assert median_error(label, made, 0, 2) < 0.15 * motion


def test_dis_answers_the_reverse_pair_with_the_reverse_flow() -> None:
    made = scene()
    teacher = DisTeacher()
    teacher.flow(clip_of(made), 0, 1)
    assert median_error(teacher.flow(clip_of(made), 1, 0), made, 1, 0) < 0.7


def test_geometric_flow_equals_the_ray_caster() -> None:
    made = scene()
    label = GeometricTeacher().flow(clip_of(made), 0, 3)
    assert median_error(label, made, 0, 3) < 0.02
    _, covisible = made.flow(0, 3)
    assert np.mean((label.covisibility > 0.5) == covisible) > 0.97


def test_geometric_needs_depth() -> None:
    with pytest.raises(TrainingError, match="depth and poses"):
        GeometricTeacher().flow(replace(clip_of(scene(frames=2)), depth=None), 0, 1)


def bad_clip(kind: str) -> Clip:
    clip = clip_of(scene(frames=2))
    rgb = clip.rgb.copy()
    if kind == "textureless":
        rgb[0], rgb[1] = 120, 124
    elif kind == "blur":
        rgb[1] = cv2.GaussianBlur(rgb[1], (0, 0), 6)
    elif kind == "same_image":
        rgb[1] = rgb[0]
    elif kind == "too_large_motion":
        rgb[1] = scene(seed=77, frames=2).rgb[1]
    return replace(clip, key=kind, rgb=rgb)


@pytest.mark.parametrize("kind", ["textureless", "blur", "same_image", "too_large_motion"])
def test_pairs_that_dis_cannot_do_are_refused(kind: str) -> None:
    assert DisTeacher().flow(bad_clip(kind), 0, 1).reason == kind


class ShiftedTeacher:
    """Says what another teacher says, 5 px off in the left half."""

    name = "shifted"
    identity = {"name": "shifted"}  # noqa: RUF012

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        label = GeometricTeacher().flow(clip, i, j)
        moved = label.displacement.copy()
        moved[:, : moved.shape[1] // 2] += 5.0
        return replace(label, displacement=moved)


def test_only_pixels_on_which_two_teachers_agree_stay() -> None:
    clip = clip_of(scene())
    first = GeometricTeacher()
    both = AgreeingTeachers(first, ShiftedTeacher()).flow(clip, 0, 1)
    half = clip.rgb.shape[2] // 2
    assert both.covisibility[:, :half].max() == 0
    np.testing.assert_array_equal(
        both.covisibility[:, half:], first.flow(clip, 0, 1).covisibility[:, half:]
    )


def test_agreement_is_opened_by_name_and_keeps_most_of_a_good_pair() -> None:
    label = open_teacher("dis+geometric").flow(clip_of(scene()), 0, 1)
    assert label.reason == ""
    assert np.mean(label.covisibility > 0.5) > 0.5


def test_what_two_teachers_disagree_on_is_counted() -> None:
    clip = clip_of(scene())
    first = GeometricTeacher()
    alone = first.flow(clip, 0, 1)
    both = AgreeingTeachers(first, ShiftedTeacher()).flow(clip, 0, 1)
    seen = alone.covisibility > 0.5
    left = float(seen[:, : seen.shape[1] // 2].sum() / seen.sum())
    assert both.disagreed == pytest.approx(left, abs=1e-6)
    assert alone.disagreed == 0
    same = AgreeingTeachers(first, GeometricTeacher()).flow(clip, 0, 1)
    assert same.disagreed == 0


class HalfWrong:
    """DIS, 9 px off in the left half."""

    name = "half_wrong"
    identity = {"name": "half_wrong"}  # noqa: RUF012

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        label = DisTeacher().flow(clip, i, j)
        moved = label.displacement.copy()
        moved[:, : moved.shape[1] // 2] += 9.0
        return replace(label, displacement=moved)


def test_labels_keep_the_pixels_on_which_both_agree_and_the_report_counts_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = EntryPoint("half_wrong", f"{__name__}:HalfWrong", flow_teacher.ENTRY_POINTS)
    monkeypatch.setattr(flow_teacher, "entry_points", lambda group: [entry])
    images = write_images(tmp_path / "images", scene(frames=4))
    settings = LabelSettings(teacher="dis+half_wrong", strides=(1,), both_ways=False)
    report = label([images], tmp_path / "cache", settings)
    assert report.refused == {}
    assert 0.4 < report.disagreed < 0.6
    again = label([images], tmp_path / "cache", settings)
    assert (again.labelled, again.disagreed) == (0, report.disagreed)
    cache = LabelCache.existing(tmp_path / "cache")
    (shard,) = (tmp_path / "cache" / "labels").rglob("*.shard")
    (clip,) = (tmp_path / "cache" / "clips").rglob("*.shard")
    (unit,) = cache.units(clip.stem, 4)
    assert cache.path(unit) == shard
    for kept in cache.load(unit).values():
        half = kept.covisibility.shape[1] // 2
        assert kept.covisibility[:, : half - 2].max() == 0
        assert kept.covisibility[:, half + 2 :].mean() > 0.5


def test_a_pair_on_which_too_little_is_agreed_is_refused() -> None:
    class Wrong(GeometricTeacher):
        def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
            found = super().flow(clip, i, j)
            return replace(found, displacement=found.displacement + 20)

    refused = AgreeingTeachers(GeometricTeacher(), Wrong()).flow(clip_of(scene()), 0, 1)
    assert (refused.reason, refused.disagreed) == ("disagreement", 1.0)


def test_options_reach_the_teacher_that_has_them() -> None:
    both = open_teacher("dis+geometric", width=168)
    assert both.identity["teachers"][0]["width"] == 168
    own = open_teacher("dis+geometric", dis={"width": 224})
    assert own.identity["teachers"][0]["width"] == 224
    with pytest.raises(TrainingError, match=r"dis\+geometric: none has the option colour"):
        open_teacher("dis+geometric", colour="red")
    with pytest.raises(TrainingError, match="sea_raft: no weights were given"):
        open_teacher("dis+sea_raft")
    assert content_options({"weights": "a", "width": 9, "raft": {"weights": "b", "width": 8}}) == {
        "width": 9,
        "raft": {"width": 8},
    }


@pytest.mark.parametrize("name", ["raft", "sea_raft", "ufm"])
def test_network_teachers_ask_for_weights(name: str) -> None:
    with pytest.raises(TrainingError, match="weights"):
        open_teacher(name)
    with pytest.raises(TrainingError, match="do not exist"):
        open_teacher(name, weights="/nowhere/weights.pth")


def test_an_unknown_teacher_or_option_is_named() -> None:
    with pytest.raises(TrainingError, match=r"gossip.*dis, geometric"):
        open_teacher("gossip")
    with pytest.raises(TrainingError, match="flow teacher dis: has no option colour"):
        open_teacher("dis", colour="red")


def test_installed_entry_points_are_teachers(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = EntryPoint(
        "shifted", "test.training.labels.test_teacher:ShiftedTeacher", flow_teacher.ENTRY_POINTS
    )
    monkeypatch.setattr(
        flow_teacher,
        "entry_points",
        lambda group: [entry] if group == flow_teacher.ENTRY_POINTS else [],
    )
    assert open_teacher("shifted").identity == {"name": "shifted"}
