"""The front end: follows corners from the latest keyframe into each frame and finds its pose.

A coarse-to-fine search from the frame before says roughly where each corner went, whatever the
motion, and a first pose follows. Each corner is then found to sub-pixel by the keyframe's own
patch, turned and scaled to that pose, so nothing drifts from frame to frame. One corner in four is
held back: followed like the others but never used for the pose, it is what verification judges the
pose by.

The tracker owns the followed corners (`corners.Reference`) and where they were seen last.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from flow3r_ros.geometry.camera_pose import (
    DepthPoints,
    PoseFit,
    PosePrior,
    depths_from,
    fit_camera_pose,
    judge_camera_pose,
    pose_without_depth,
    project_points,
)
from flow3r_ros.odometry.corners import Reference, Tracked
from flow3r_ros.odometry.patches import (
    MAX_RETURN_PX,
    WINDOW,
    find_patches,
    follow_patches,
    plane_homography,
)
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64

FOLLOWED = 2.0
"""sigmas of a corner followed from the frame before, over those of one found by the keyframe's
patch"""
SIGMA_PX, LEAST_SIGMA_PX, MOST_SIGMA_PX = 0.15, 0.1, 1.2
"""pixels of the tracking image: 1-sigma of a corner's position at the start, and its bounds; a
camera that blurs or bends measures worse, and how much worse shows in the corners that agree"""
JUDGED_PX = 0.4
"""pixels: least 1-sigma that corners are judged with: a patch that changes its look is found a
little beside its place, which is no disagreement"""
SIGMA_MEMORY = 0.9
"""share of the measured sigma that is kept from frame to frame"""
AGREED = 4.0
"""sigmas from the pose within which a corner was seen where it belongs"""
COARSE_PX = 1.0
"""pixels: 1-sigma with which a search for a pose begins"""
MIN_CORNERS = 12
"""corners without which there is no pose"""
SURE, ENOUGH_SURE = 0.15, 50
"""relative sigma of inverse depth that parallax has shown; corners like that which are enough for a
pose"""
ENOUGH_FOLLOWED = 100
"""corners of proven depth that are followed from the frame before; all are where these do not
settle the pose"""
NEAR_PX = 2.0
"""pixels by which motion missed the corners of the last frame, up to which they are searched in the
full picture alone: a patch bridges twice that"""
EXPLAINED = 0.65
"""share of the corners that a first pose must explain; below it they are followed back as well, and
other starts are tried: the essential matrix needs no depth"""


class Tracker:
    """Follows the corners of one keyframe; `reference` is None until there is one, `noise_px` the
    measured 1-sigma of a corner's position."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget keyframe and corners."""
        self.reference: Reference | None = None
        self._before: View | None = None
        self._pixels = np.empty((0, 2), np.float32)
        self._last = np.eye(4)
        self._expected: DepthPoints | None = None
        self._parallax = np.empty(0)
        self._missed_px = np.inf
        self.noise_px = SIGMA_PX

    def start(self, view: View) -> None:
        """The frame before the next one, while there is no keyframe."""
        self._before = view

    def follow(self, reference: Reference, T_ref_cam: Float64, last: Tracked | None = None) -> None:
        """Follow the corners of another keyframe, or of the same one with better depths.

        Args:
            T_ref_cam: pose of the latest frame in it.
            last: where the latest frame saw the corners that were followed so far.
        """
        self._expected, self._parallax = reference.points, np.zeros(len(reference.ids))
        self.reference = reference
        seen_by = reference.view
        where = seen_by.bent(project_points(reference.points, T_ref_cam, seen_by.lens))
        pixels = np.where(np.isfinite(where), where, reference.pixels).astype(np.float32)
        if last is not None:
            _, mine, theirs = np.intersect1d(
                reference.ids, last.ids[last.agreed], return_indices=True
            )
            pixels[mine] = last.pixels[last.agreed][theirs]
        self._pixels, self._last = pixels, T_ref_cam

    def track(self, view: View, start: Float64, prior: PosePrior | None = None) -> Tracked | None:
        """Corners and pose of a frame from `start` `[4, 4]`, its pose in the keyframe as motion
        predicts it. None without a keyframe of this size."""
        reference, before = self.reference, self._before
        self._before = view
        if reference is None or reference.view.tracking.shape != view.tracking.shape:
            return None
        tracked = self._expected_there(reference, view, start, prior)
        if tracked is None:
            tracked = self._searched(reference, before, view, start, prior)
        self._pixels, self._last = tracked.pixels, tracked.T_ref_cam
        self._measure(tracked)
        return tracked

    def _expected_there(
        self, reference: Reference, view: View, start: Float64, prior: PosePrior | None
    ) -> Tracked | None:
        """Corners and pose of a frame that is about where motion predicts it; None where proven
        depths do not agree on that."""
        if not _sure_ones(reference, ~reference.held_back)[1]:
            return None
        there = view.bent(project_points(reference.points, start, view.lens))
        known = np.asarray(np.all(np.isfinite(there), axis=1))
        target = np.where(known[:, None], there, self._pixels).astype(np.float32)
        levels = 0 if self._missed_px < NEAR_PX else 1
        pixels, found = _search(reference, view, start, target, levels)
        found &= known
        tracked = _posed(reference, pixels, found, start, view, self.sigma_px, prior)
        if tracked.agreed.any():
            off = np.linalg.norm(pixels - target, axis=1)[tracked.agreed]
            self._missed_px = float(np.median(off))
        enough = _sure_ones(reference, found & ~reference.held_back)[1]
        sure = enough and tracked.fit is not None and tracked.fit.inliers > EXPLAINED
        return tracked if sure else None

    def _searched(
        self,
        reference: Reference,
        before: View | None,
        view: View,
        start: Float64,
        prior: PosePrior | None,
    ) -> Tracked:
        """Corners and pose of a frame from where the corners were in the one `before`."""
        starts, sure = [start, self._last], False
        few = self._few()
        if few is not None:
            guess, followed = self._followed(before, view, few)
            rough, sure = _rough_pose(
                reference, guess, followed, starts, view, self.sigma_px, prior
            )
        if not sure:
            guess, followed = self._followed(before, view)
            if not _sure_ones(reference, followed & ~reference.held_back)[1]:
                starts += self._essential(guess, followed, view)
            rough, sure = _rough_pose(
                reference, guess, followed, starts, view, self.sigma_px, prior
            )
        if not sure and before is not None:
            home, returned = follow_patches(view.tracking, before.tracking, guess)
            followed &= returned & (np.linalg.norm(home - self._pixels, axis=1) < MAX_RETURN_PX)
            starts = [start, self._last, np.eye(4), *self._essential(guess, followed, view)]
            rough, sure = _rough_pose(reference, guess, followed, starts, view, self.sigma_px)
        there = view.bent(project_points(reference.points, rough, view.lens))
        known = np.asarray(np.all(np.isfinite(there), axis=1))
        target = np.where(known[:, None] & ~followed[:, None], there, guess).astype(np.float32)
        pixels, found = _search(reference, view, rough, target, 1 if sure else 3)
        return _posed(reference, pixels, found & known, rough, view, self.sigma_px, prior)

    def learn(self, tracked: Tracked) -> None:
        """Take what a believed pose says of the depths of the corners it was found with; those that
        judge must not take their depth from the judged. One observation counts, that with the
        widest parallax: those of one patch share their error."""
        assert self.reference is not None
        assert self._expected is not None
        view = self.reference.view
        lens, observed = view.lens, view.straightened(tracked.pixels)
        T = tracked.T_ref_cam
        seen, parallax = depths_from(self._expected, observed, lens, T, self.judged_px)
        wider = tracked.agreed & ~self.reference.held_back & (parallax > self._parallax)
        self._parallax = np.where(wider, parallax, self._parallax)
        known = self.reference.points
        inverse = np.where(wider, seen.inverse, known.inverse)
        sigma = np.where(wider, seen.sigma, known.sigma)
        self.reference = replace(self.reference, points=DepthPoints(known.rays, inverse, sigma))

    @property
    def parallax_px(self) -> float:
        """Median, over the corners that give poses, of the widest parallax seen, pixels."""
        gives = np.empty(0, np.bool_) if self.reference is None else ~self.reference.held_back
        return float(np.median(self._parallax[gives])) if gives.any() else 0.0

    def _essential(self, guess: Float32, followed: Bool, view: View) -> list[Float64]:
        """Pose `[4, 4]` in the keyframe from the corners that were followed, without their depths,
        where they give one."""
        assert self.reference is not None
        used = followed & ~self.reference.held_back
        points = self.reference.points.only(used)
        pose = pose_without_depth(points, view.straightened(guess[used]), view.lens)
        return [] if pose is None else [pose]

    def _measure(self, tracked: Tracked) -> None:
        """Follow the noise of the corners that agree: 1.48 times the median across their epipolar
        lines, where depth does not count."""
        if tracked.fit is None or len(tracked.fit.whitened) < 2 * MIN_CORNERS:
            return
        near = tracked.fit.distance < AGREED * self.judged_px / self.sigma_px
        across = np.abs(tracked.fit.whitened[near, 1]) * self.sigma_px
        if len(across) >= MIN_CORNERS:
            seen = 1.48 * float(np.median(across))
            self.noise_px = SIGMA_MEMORY * self.noise_px + (1.0 - SIGMA_MEMORY) * seen

    @property
    def sigma_px(self) -> float:
        """1-sigma of a corner's position that poses are found with: the measured one, in bounds."""
        return float(np.clip(self.noise_px, LEAST_SIGMA_PX, MOST_SIGMA_PX))

    @property
    def judged_px(self) -> float:
        """1-sigma of a corner's position that poses are judged with."""
        return _judged_px(self.sigma_px)

    def look(self, view: View, reference: Reference, T_ref_cam: Float64) -> Tracked:
        """What the corners of some keyframe say about a frame that is thought to be at `T_ref_cam`
        `[4, 4]` in it; changes nothing."""
        there = view.bent(project_points(reference.points, T_ref_cam, view.lens))
        known = np.asarray(np.all(np.isfinite(there), axis=1))
        target = np.where(known[:, None], there, reference.pixels).astype(np.float32)
        pixels, found = _search(reference, view, T_ref_cam, target, 3)
        distance = judge_camera_pose(
            reference.points,
            view.straightened(pixels),
            view.lens,
            T_ref_cam,
            FOLLOWED * self.judged_px,
        )
        near = found & known & (distance < AGREED)
        return _posed(reference, pixels, near, T_ref_cam, view, self.sigma_px)

    def _few(self) -> Bool | None:
        """Enough corners `[N]` of proven depth for a first pose; None without."""
        assert self.reference is not None
        usable = ~self.reference.held_back & np.isfinite(self._pixels).all(axis=1)
        sure, enough = _sure_ones(self.reference, usable)
        order = np.flatnonzero(sure)
        if not enough or len(order) <= ENOUGH_FOLLOWED:
            return None
        few = np.zeros(len(usable), np.bool_)
        few[order[np.linspace(0, len(order) - 1, ENOUGH_FOLLOWED).astype(int)]] = True
        return few

    def _followed(
        self, before: View | None, view: View, some: Bool | None = None
    ) -> tuple[Float32, Bool]:
        """Where the corners (`some` `[N]` of them, or all) went since the frame before, `[N, 2]`
        pixels, and whether each was found."""
        went, found = self._pixels.copy(), np.zeros(len(self._pixels), np.bool_)
        if before is None or before.tracking.shape != view.tracking.shape or not len(went):
            return went, found
        chosen = np.ones(len(went), np.bool_) if some is None else some
        expected = view.turned(self._pixels[chosen])
        went[chosen], found[chosen] = follow_patches(
            before.tracking, view.tracking, self._pixels[chosen], expected
        )
        return went, found


def _judged_px(sigma_px: float) -> float:
    return max(sigma_px, JUDGED_PX)


def _sure_ones(reference: Reference, usable: Bool) -> tuple[Bool, bool]:
    """The usable corners whose depth parallax has shown, and whether they are enough; else all of
    them: guessed depths agree with each other on wrong motions."""
    sure = usable & (reference.points.sigma < SURE * reference.points.inverse)
    enough = int(np.count_nonzero(sure)) >= ENOUGH_SURE
    return (sure if enough else usable), enough


def _rough_pose(
    reference: Reference,
    guess: Float32,
    followed: Bool,
    starts: Sequence[Float64],
    view: View,
    sigma_px: float,
    prior: PosePrior | None = None,
) -> tuple[Float64, bool]:
    """First pose from the followed corners, best over several starts; whether it explains them."""
    used, proven = _sure_ones(reference, followed & ~reference.held_back)
    if np.count_nonzero(used) < MIN_CORNERS:
        return starts[0], False
    points, observed, lens = reference.points.only(used), view.straightened(guess[used]), view.lens
    if not proven:
        starts = [
            fit_camera_pose(points, observed, lens, each, COARSE_PX, 4, prior).T for each in starts
        ]
    fits: list[PoseFit] = []
    for each in starts:
        fits.append(fit_camera_pose(points, observed, lens, each, FOLLOWED * sigma_px, 6, prior))
        if proven and fits[-1].inliers > EXPLAINED:  # proven depths agree on one motion alone
            break
    fit = min(fits, key=lambda each: each.cost)
    return (fit.T, True) if fit.inliers > EXPLAINED else (starts[0], False)


def _search(
    reference: Reference, view: View, T_ref_cam: Float64, target: Float32, levels: int
) -> tuple[Float32, Bool]:
    """Corners to sub-pixel from the keyframe's patches as seen from `T_ref_cam`."""
    inverse = float(np.median(reference.points.inverse)) if len(reference.ids) else 0.0
    homography = plane_homography(T_ref_cam, inverse, view.lens)
    pixels, found = find_patches(
        reference.view.tracking, view.tracking, homography, reference.pixels, target, levels
    )
    return pixels, found & view.shows(pixels)


def _posed(
    reference: Reference,
    pixels: Float32,
    found: Bool,
    rough: Float64,
    view: View,
    sigma_px: float,
    prior: PosePrior | None = None,
) -> Tracked:
    """Pose from the corners that are not held back, and what those that are say of it."""
    used, _ = _sure_ones(reference, found & ~reference.held_back)
    lens, observed = view.lens, view.straightened(pixels)
    fit, T = None, rough
    if np.count_nonzero(used) >= MIN_CORNERS:
        fit = fit_camera_pose(
            reference.points.only(used), observed[used], lens, rough, sigma_px, 8, prior, near=True
        )
        T = fit.T
    belongs = project_points(reference.points, T, lens)
    with np.errstate(invalid="ignore"):
        edge = np.array([lens.width, lens.height]) - WINDOW / 2.0
        inside = np.all((belongs > WINDOW / 2.0) & (belongs < edge), axis=1)
    distance = judge_camera_pose(reference.points, observed, lens, T, _judged_px(sigma_px))
    agreed = found & (distance < AGREED)
    asked = inside & reference.held_back
    where = np.where(np.isfinite(belongs), view.bent(belongs), pixels)
    where[agreed] = pixels[agreed]
    return Tracked(
        ids=reference.ids,
        T_ref_cam=T,
        fit=fit,
        agreed=agreed,
        pixels=where.astype(np.float32),
        judged=distance[asked & found],
        asked=int(np.count_nonzero(asked)),
        expected=int(np.count_nonzero(inside)),
    )
