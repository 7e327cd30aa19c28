"""Flow teachers: who says where each pixel of one frame went in another, and how sure that is.

One interface for all: `flow(clip, i, j)` returns displacement, covisibility and confidence, or a
reason why this teacher cannot do the pair. `dis` is the default (the same OpenCV DIS matcher that
odometry uses, no weights); `geometric` reads it off depth, poses and K; `raft`, `sea_raft` and
`ufm` run networks whose weights the user brings; others come in through the entry-point group
`flow3r_ros.flow_teachers`; two joined by `+` are heard together. The 2-D teacher bounds what flow
supervision can teach (the paper's first stated limit), so every refusal is counted by its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import entry_points
from inspect import signature
from typing import Any

import cv2
import numpy as np

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.correspondence import Correspondence, Matcher
from flow3r_ros.geometry.flow import geometric_flow, resize_flow
from flow3r_ros.geometry.lie import invert
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.labels.teacher import MIN_COVISIBLE, FlowTeacher

ENTRY_POINTS = "flow3r_ros.flow_teachers"
SAME_IMAGE = 0.25  # mean grey-level difference below which two frames are the same image


NETWORKS = {"raft": "RaftTeacher", "sea_raft": "SeaRaftTeacher", "ufm": "UfmTeacher"}
"""teachers that are networks, and their classes in `network_teachers`"""
AGREE_PX = 1.5  # end-point distance up to which two teachers agree, plus 5 % of the motion


class DisTeacher:
    """OpenCV DIS both ways (`geometry.correspondence`, as odometry uses it): no weights, the
    default.

    Args:
        width: width in pixels (of a 4:3 image) that flow is computed at.
        sparse_fallback: let feature matches start DIS anew where it fails (wide gaps).
    """

    name = "dis"

    def __init__(self, width: int = 336, sparse_fallback: bool = True) -> None:
        self.width, self.sparse_fallback = width, sparse_fallback
        self._matcher = Matcher(width=width, sparse_fallback=sparse_fallback)
        self._last: tuple[str, int, int, Correspondence] | None = None

    @property
    def identity(self) -> dict[str, Any]:
        """Name and settings."""
        return {"name": self.name, "width": self.width, "sparse_fallback": self.sparse_fallback}

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`; confidence is covisibility times texture. The reverse of the last
        pair costs nothing."""
        if self._last is not None and self._last[:3] == (clip.key, j, i):
            return _label(self._last[3].reversed())
        a, b = (self._matcher.prepare(clip.rgb[index]) for index in (i, j))
        if float(np.mean(cv2.absdiff(a, b))) < SAME_IMAGE:
            empty = np.zeros(a.shape, np.float32)
            return FlowLabel(np.zeros((*a.shape, 2), np.float32), empty, empty, "same_image")
        found = self._matcher.flow(a, b)
        self._last = (clip.key, i, j, found)
        return _label(found)


def _label(found: Correspondence) -> FlowLabel:
    """A correspondence as a label; fields that hold at feature matches only are refused."""
    reason = found.reason or ("too_large_motion" if found.sparse else "")
    return FlowLabel(found.flow, found.covisibility, found.covisibility * found.texture, reason)


class GeometricTeacher:
    """Exact flow of a static scene from depth, poses and K; covisible where both depths agree
    within 5 %."""

    name = "geometric"

    @property
    def identity(self) -> dict[str, Any]:
        """Name only: there is nothing to set."""
        return {"name": self.name}

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`. Raises TrainingError when the clip has no depth or poses."""
        if clip.depth is None or clip.poses is None:
            raise TrainingError(
                f"{clip.source}: the geometric teacher needs depth and poses",
                "use --teacher dis for unlabelled data",
            )
        T_i_j = invert(clip.poses[i]) @ clip.poses[j]
        flow, covisible = geometric_flow(
            clip.depth[i], T_i_j, clip.camera, clip.camera, clip.depth[j]
        )
        covisibility = covisible.astype(np.float32)
        reason = "too_large_motion" if float(covisibility.mean()) < MIN_COVISIBLE else ""
        return FlowLabel(flow, covisibility, covisibility, reason)


class AgreeingTeachers:
    """Two teachers; only pixels where both agree stay covisible. The first one's displacement is
    kept.

    Agreement: end-point distance below `AGREE_PX` plus 5 % of the motion. A pair that either
    refuses, or on which fewer than `MIN_COVISIBLE` pixels agree, is refused (`disagreement`).
    """

    def __init__(self, first: FlowTeacher, second: FlowTeacher) -> None:
        self.first, self.second = first, second
        self.name = f"{first.name}+{second.name}"

    @property
    def identity(self) -> dict[str, Any]:
        """Both identities and the tolerance."""
        return {
            "name": self.name,
            "teachers": [self.first.identity, self.second.identity],
            "tolerance_px": AGREE_PX,
        }

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """See `FlowTeacher.flow`."""
        ours, theirs = self.first.flow(clip, i, j), self.second.flow(clip, i, j)
        h, w = ours.covisibility.shape
        other = resize_flow(theirs.displacement, w, h)
        seen = cv2.resize(theirs.covisibility, (w, h), interpolation=cv2.INTER_LINEAR)
        allowed = AGREE_PX + 0.05 * np.linalg.norm(ours.displacement, axis=-1)
        agree = (np.linalg.norm(ours.displacement - other, axis=-1) < allowed).astype(
            np.float32
        ) * np.asarray(seen, np.float32)
        covisibility = np.minimum(ours.covisibility, agree)
        before, after = (float(np.mean(one > 0.5)) for one in (ours.covisibility, covisibility))
        reason = ours.reason or theirs.reason
        if not reason and after < MIN_COVISIBLE:
            reason = "disagreement"
        return replace(
            ours,
            covisibility=covisibility,
            confidence=np.minimum(ours.confidence, agree),
            reason=reason,
            disagreed=1 - after / before if before else 0.0,
        )


def open_teacher(name: str, **options: Any) -> FlowTeacher:
    """The teacher called `name`: `dis`, `geometric`, `raft`, `sea_raft`, `ufm`, an installed entry
    point, or two joined by `+` (agreement).

    `options` go to the teacher (`width` for dis; `weights`, `width`, `device` for networks); of two
    teachers to those that have such an option, or to one alone as a mapping under its name
    (`{"raft": {"weights": ...}}`). Raises TrainingError for an unknown name, an option that no
    teacher has, or missing weights.
    """
    names = name.split("+", 1)
    factories = {each: _factory(each) for each in names if "+" not in each}
    if len(names) == 1:
        return _made(name, factories[name], options.get(name, options))
    unknown = [
        option
        for option in options
        if option not in names and not any(_takes(make, option) for make in factories.values())
    ]
    if unknown:
        raise TrainingError(
            f"flow teacher {name}: none has the option {unknown[0]}", "check teacher_options"
        )
    first, second = (_one_of_two(each, factories.get(each), options) for each in names)
    return AgreeingTeachers(first, second)


def _one_of_two(
    name: str, factory: Callable[..., FlowTeacher] | None, options: dict[str, Any]
) -> FlowTeacher:
    if factory is None:
        return open_teacher(name, **options)
    shared = {option: value for option, value in options.items() if _takes(factory, option)}
    return _made(name, factory, {**shared, **options.get(name, {})})


def _made(name: str, factory: Callable[..., FlowTeacher], options: dict[str, Any]) -> FlowTeacher:
    for option in options:
        if not _takes(factory, option):
            raise TrainingError(
                f"flow teacher {name}: has no option {option}", "check teacher_options"
            )
    try:
        return factory(**options)
    except TypeError as error:
        raise TrainingError(f"flow teacher {name}: {error}", "check teacher_options") from error


def _takes(factory: Callable[..., FlowTeacher], option: str) -> bool:
    known = signature(factory).parameters
    return option in known or any(one.kind is one.VAR_KEYWORD for one in known.values())


def _factory(name: str) -> Callable[..., FlowTeacher]:
    if name == "dis":
        return DisTeacher
    if name == "geometric":
        return GeometricTeacher
    if name in NETWORKS:
        from flow3r_ros.training.labels import network_teachers

        factory: Callable[..., FlowTeacher] = getattr(network_teachers, NETWORKS[name])
        return factory
    installed = {entry.name: entry for entry in entry_points(group=ENTRY_POINTS)}
    if name in installed:
        factory = installed[name].load()
        return factory
    known = ["dis", "geometric", *NETWORKS, *sorted(installed)]
    raise TrainingError(f"no flow teacher is called {name}", f"choose one of {', '.join(known)}")
