"""Classical geometry beside the network: where the new frame stands according to dense
correspondences alone.

The new frame is matched against the last keyframes, starting where the previous frame was seen in
them (and, where that fails, through the previous frame); its pose is the one that reprojects the
keyframes' uncertain depth best, started from the predicted motion and, where that does not fit,
from the previous pose and the two-view hybrid. Nothing here sees the network; the engine lets both
compete.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from flow3r_ros.config import AssistSettings
from flow3r_ros.geometry.correspondence import ENOUGH, Correspondence, Matcher, chain
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import rigid
from flow3r_ros.geometry.two_view import (
    RefinedPose,
    Target,
    hybrid_pose,
    make_target,
    refine_pose,
    sharpened,
)
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float64, PoseSource

STATIC_PX = 0.3
"""pixels of the matching grid: a covisible pixel that moved less stands still"""
STATIC_SHARE = 0.6
"""share of trusted pixels that must stand still for the camera to"""
GOOD_COST = 1.4
"""whitened robust rms below which a refined pose needs no other start"""
GOOD_INLIERS = 0.75
"""share of correspondences within three sigma above which a refined pose needs no other start"""
MAX_COST = 2.5
"""whitened robust rms above which geometry does not know the pose"""
MIN_INLIERS = 0.4
"""share of correspondences within three sigma below which geometry does not know the pose"""
DOUBT, DOUBTED_SIGMA = 4.0, 0.3
"""factor on the sigma of depth that no pose fits, and the relative sigma it then has at least"""
CORRELATED = 6.0
"""flow vectors that count as one independent measurement"""
MOVED_ON = 0.02
"""median displacement from the latest keyframe, as a share of the width, from which on older
keyframes are matched as well"""
MIN_SHARE = 0.08
"""covisible share below which a link is not used"""


@dataclass(frozen=True)
class Link:
    """Correspondence from a remembered view to the new one."""

    reference: View
    correspondence: Correspondence


@dataclass(frozen=True)
class Track:
    """What correspondences say about one new frame.

    `links` to keyframes, the latest first; `step` from the previous frame where it had to be
    matched; `targets` what a pose of this frame is judged against; `refined` the best pose (None
    where nothing fits); `source` the start that led there; `pose` `[4, 4]` what to go on with;
    `still` the view the camera has not moved away from, if any; `depth` what geometry knows of the
    frame at `pose`.
    """

    links: tuple[Link, ...]
    step: Link | None
    targets: tuple[Target, ...]
    refined: RefinedPose | None
    source: PoseSource
    pose: Float64
    still: View | None = None
    depth: DepthMap | None = None

    def likelihood_ratio(self, pose: Float64, view: View) -> float:
        """How much worse another pose `[4, 4]` explains the correspondences than the refined one
        (chi-square of 6); inf without one.

        Neighbouring flow vectors are not independent: `CORRELATED` of them count as one.
        """
        if self.refined is None:
            return float("inf")
        other = refine_pose(pose, list(self.targets), view.camera, iterations=0)
        independent = sum(float(target.weight.sum()) for target in self.targets) / CORRELATED
        return independent * (other.objective - self.refined.objective)


@dataclass(frozen=True)
class Memory:
    """What leads from one frame to the next: the correspondences (reference id -> it) of the last
    frame that moved, and its id."""

    links: dict[int, Correspondence] = field(default_factory=dict)
    last_id: int = -1


class Assist:
    """Matches new frames and finds their poses; `memory` of the last track is where the next one
    starts."""

    def __init__(self, settings: AssistSettings) -> None:
        self.settings = settings
        self._matcher = Matcher(settings.width, settings.sparse_fallback, threads=2)
        self._dense_matcher = Matcher(settings.width, sparse_fallback=False, threads=2)
        self.reset()

    def reset(self) -> None:
        """Forget the last track."""
        self.memory = Memory()
        self._between: dict[tuple[int, int], Correspondence] = {}

    def track(
        self, view: View, previous: View | None, keyframes: list[View], predicted: Float64
    ) -> Track:
        """Match `view` against the last keyframes (or else `previous`) and refine its pose from
        `predicted` `[4, 4]`."""
        before = (
            self.memory.links if previous is not None and self.memory.last_id == previous.id else {}
        )
        links, step = self._match(
            view, previous, before, keyframes[-self.settings.keyframes :][::-1]
        )
        references = links or ([step] if step is not None else [])
        targets = tuple(_target(link) for link in references)
        targets = tuple(target for target in targets if len(target.rays_a) >= 30)
        still = _unmoved(links, step, previous, before)
        if still is not None and not stands_still(self._matcher.flow(still.picture, view.picture)):
            # flow that starts where a pixel was seen last lags behind slow motion; a fresh look
            # decides
            still = None
        if still is not None:
            return Track(
                tuple(links), step, targets, None, PoseSource.STATIONARY, still.expected, still
            )
        self.memory = Memory({link.reference.id: link.correspondence for link in links}, view.id)
        if not targets:
            return Track(tuple(links), step, targets, None, PoseSource.PREDICTED, predicted)
        refined, source = self._refine(view, previous, references[0], list(targets), predicted)
        if not _fits(refined):
            targets = tuple(_doubted(target) for target in targets)
            refined, source = self._refine(
                view, previous, references[0], list(targets), refined.T_world_cam
            )
        if not _fits(refined):
            return Track(tuple(links), step, targets, None, PoseSource.PREDICTED, predicted)
        return Track(tuple(links), step, targets, refined, source, refined.T_world_cam)

    def remember(self, keyframe: View, links: tuple[Link, ...]) -> None:
        """Keep how a new keyframe is linked to older ones, to lead the way from them to later
        frames."""
        self._between = {(link.reference.id, keyframe.id): link.correspondence for link in links}

    def _match(
        self,
        view: View,
        previous: View | None,
        before: dict[int, Correspondence],
        keyframes: list[View],
    ) -> tuple[list[Link], Link | None]:
        """Links to the keyframes, the latest first, and to the previous frame where that was
        matched on the way.

        `before` are the previous frame's links. Older keyframes are matched only once the view has
        moved on from the latest.
        """
        step: Link | None = None
        links: list[Link] = []
        for keyframe in keyframes:
            if keyframe.gray.shape != view.gray.shape:
                continue
            if links and not _moved_on(links[0].correspondence, view):
                break
            initial = before.get(keyframe.id)
            if initial is None and links:
                between = self._between.get((keyframe.id, links[0].reference.id))
                initial = chain(between, links[0].correspondence) if between is not None else None
            matcher = self._matcher if initial is None and not links else self._dense_matcher
            correspondence = matcher.flow(keyframe.picture, view.picture, initial)
            if (
                initial is not None
                and not links
                and correspondence.share < ENOUGH
                and previous is not None
            ):
                step = Link(previous, self._matcher.flow(previous.picture, view.picture))
                through = self._dense_matcher.flow(
                    keyframe.picture, view.picture, chain(initial, step.correspondence)
                )
                correspondence = max(correspondence, through, key=lambda found: found.share)
            if correspondence.share >= MIN_SHARE or not links:
                links.append(Link(keyframe, correspondence))
        if not links and previous is not None and previous.gray.shape == view.gray.shape:
            step = Link(previous, self._matcher.flow(previous.picture, view.picture))
        return links, step

    def _refine(
        self,
        view: View,
        previous: View | None,
        link: Link,
        targets: list[Target],
        predicted: Float64,
    ) -> tuple[RefinedPose, PoseSource]:
        """Lowest cost over the starts; the expensive hybrid is asked only when the cheap ones do
        not fit."""
        best = refine_pose(predicted, targets, view.camera, iterations=8)
        if previous is not None and (best.cost > GOOD_COST or best.inliers < GOOD_INLIERS):
            other = refine_pose(previous.expected, targets, view.camera, iterations=8)
            best = min(best, other, key=lambda pose: pose.objective)
        source = PoseSource.PNP
        if best.cost > GOOD_COST or best.inliers < GOOD_INLIERS:
            depth = np.where(
                link.reference.sigma < 0.5 * link.reference.inverse_depth,
                1.0 / link.reference.inverse_depth,
                np.nan,
            )
            pair = hybrid_pose(link.correspondence, view.camera, depth.astype(np.float32))
            if pair.source is not PoseSource.PREDICTED:
                T = pair.T if pair.scaled else rigid(pair.T[:3, :3], np.zeros(3))
                other = refine_pose(link.reference.pose @ T, targets, view.camera, iterations=8)
                if other.objective < best.objective:
                    best, source = other, pair.source
        return sharpened(best, targets, view.camera), source


def _fits(refined: RefinedPose) -> bool:
    """Whether a refined pose explains the correspondences well enough to be known."""
    return refined.cost < MAX_COST and refined.inliers > MIN_INLIERS


def _doubted(target: Target) -> Target:
    """The same points with depth that is hardly believed: where no pose fits, it is the depth that
    was too sure of itself."""
    return replace(
        target, sigma=np.maximum(DOUBT * target.sigma, DOUBTED_SIGMA * target.inverse_depth)
    )


def _unmoved(
    links: list[Link], step: Link | None, previous: View | None, before: dict[int, Correspondence]
) -> View | None:
    """The view that the camera has not moved away from: the previous one, or a keyframe; None when
    it moves."""
    if step is not None and stands_still(step.correspondence):
        return step.reference
    for link in links:
        earlier = before.get(link.reference.id)
        if (
            previous is not None
            and earlier is not None
            and stands_still(link.correspondence, earlier)
        ):
            return previous
        if stands_still(link.correspondence):
            return link.reference
    return None


def stands_still(correspondence: Correspondence, earlier: Correspondence | None = None) -> bool:
    """True when most trusted pixels have not moved: a camera at rest, whatever else moves in the
    picture.

    With `earlier`, the correspondence from the same view to an earlier frame: not moved since then.
    Looks at every second pixel.
    """
    flow, trusted = correspondence.flow[::2, ::2], _trusted(correspondence)
    if earlier is not None:
        flow, trusted = flow - earlier.flow[::2, ::2], trusted & _trusted(earlier)
    count = int(np.count_nonzero(trusted))
    if count < 0.02 * trusted.size:
        return False
    chosen = flow[trusted]
    quiet = np.einsum("ij,ij->i", chosen, chosen) < STATIC_PX**2
    return float(np.mean(quiet)) > STATIC_SHARE


def _trusted(correspondence: Correspondence) -> Bool:
    return np.asarray(
        (correspondence.covisibility[::2, ::2] > 0.5) & (correspondence.texture[::2, ::2] > 0.3)
    )


def _moved_on(correspondence: Correspondence, view: View) -> bool:
    """True when the median displacement is large enough for a new keyframe to be near, or little is
    covisible."""
    trusted = correspondence.covisibility[::4, ::4] > 0.5
    if np.count_nonzero(trusted) < 0.5 * trusted.size:
        return True
    length = np.linalg.norm(correspondence.flow[::4, ::4][trusted], axis=-1)
    return float(np.median(length)) > MOVED_ON * view.camera.width


def _target(link: Link) -> Target:
    """The reference's depth as a target; moving pixels do not count."""
    reference = link.reference
    with np.errstate(divide="ignore", invalid="ignore"):
        depth = np.where(reference.inverse_depth > 0, 1.0 / reference.inverse_depth, np.nan).astype(
            np.float32
        )
    rigid_part = replace(
        link.correspondence,
        covisibility=np.where(reference.moving, np.float32(0), link.correspondence.covisibility),
    )
    return make_target(rigid_part, reference.camera, reference.pose, depth, reference.sigma)
