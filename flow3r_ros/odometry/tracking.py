"""The front end: follows corners from the latest keyframe into each frame and finds its pose.

Each corner is found to sub-pixel by the keyframe's own patch, turned and scaled to the pose that
motion predicts, so nothing drifts from frame to frame. Where that does not explain the frame, a
coarse-to-fine search from the frame before says roughly where each corner went, whatever the
motion, and a first pose follows. One corner in four is held back: followed like the others but
never used for the pose, it is what verification judges the pose by.

The tracker owns the followed corners (`corners.Reference`) and where they were seen last.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flow3r_ros.geometry.camera_pose import (
    DepthPoints,
    PosePrior,
    depths_from,
    judge_camera_pose,
    pose_without_depth,
    project_points,
)
from flow3r_ros.odometry.corner_pose import (
    AGREED,
    EXPLAINED,
    FOLLOWED,
    MIN_CORNERS,
    judged_px,
    near_residuals,
    posed,
    rough_pose,
    search,
    sure_ones,
)
from flow3r_ros.odometry.corners import Reference, Tracked
from flow3r_ros.odometry.patches import MAX_RETURN_PX, follow_patches
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64

SIGMA_PX, LEAST_SIGMA_PX, MOST_SIGMA_PX = 0.15, 0.1, 1.2
"""pixels of the tracking image: 1-sigma of a corner's position at the start, and its bounds; a
camera that blurs or bends measures worse, and how much worse shows in the corners that agree"""
SHARED_PX = 0.05
"""pixels that neighbouring corners are off together, at the start"""
SIGMA_MEMORY = 0.9
"""share of the measured sigma that is kept from frame to frame"""
ENOUGH_FOLLOWED = 100
"""corners of proven depth that are followed from the frame before; all are where these do not
settle the pose"""
NEAR_PX = 2.0
"""pixels by which motion missed the corners of the last frame, up to which they are searched in the
full picture alone: a patch bridges twice that"""


@dataclass(frozen=True)
class _Before:
    """The frame before, where it saw the corners `[N, 2]`, and its pose in the keyframe."""

    view: View | None
    pixels: Float32
    last: Float64


class Tracker:
    """Follows the corners of one keyframe; `reference` is None until there is one, `noise_px` the
    measured 1-sigma of a corner's position, `shared` square pixels of it that neighbouring corners
    have in common."""

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget keyframe and corners."""
        self.reference: Reference | None = None
        self._before: View | None = None
        self._untried: _Before | None = None
        self._pixels = np.empty((0, 2), np.float32)
        self._last = np.eye(4)
        self._expected: DepthPoints | None = None
        self._parallax = np.empty(0)
        self._missed_px = np.inf
        self.noise_px, self.shared = SIGMA_PX, SHARED_PX**2

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
        self._before, self._untried = view, None
        if reference is None or reference.view.tracking.shape != view.tracking.shape:
            return None
        tracked = self._expected_there(reference, view, start, prior)
        if tracked is None:
            return self._took(self._searched(reference, before, view, start, prior))
        self._untried = _Before(before, self._pixels, self._last)
        return self._took(tracked)

    def track_anew(self, view: View, start: Float64, prior: PosePrior | None) -> Tracked | None:
        """As `track`, of the frame that was just tracked, searched from where its corners were in
        the frame before whatever motion says; None where that is how it was found already."""
        untried, self._untried = self._untried, None
        if untried is None or self.reference is None:
            return None
        self._pixels, self._last = untried.pixels, untried.last
        return self._took(self._searched(self.reference, untried.view, view, start, prior))

    def _took(self, tracked: Tracked) -> Tracked:
        self._pixels, self._last = tracked.pixels, tracked.T_ref_cam
        self._measure(tracked)
        return tracked

    def _expected_there(
        self, reference: Reference, view: View, start: Float64, prior: PosePrior | None
    ) -> Tracked | None:
        """Corners and pose of a frame that is about where motion predicts it; None where proven
        depths do not agree on that."""
        if not sure_ones(reference, ~reference.held_back)[1]:
            return None
        there, known = _seen_at(reference, view, start)
        target = np.where(known[:, None], there, self._pixels).astype(np.float32)
        levels = 0 if self._missed_px < NEAR_PX else 1
        pixels, found = search(reference, view, start, target, levels)
        found &= known
        tracked = posed(reference, pixels, found, start, view, self.sigma_px, prior)
        if tracked.agreed.any():
            off = np.linalg.norm(pixels - target, axis=1)[tracked.agreed]
            self._missed_px = float(np.median(off))
        enough = sure_ones(reference, found & ~reference.held_back)[1]
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
            rough, sure = rough_pose(reference, guess, followed, starts, view, self.sigma_px, prior)
        if not sure:
            guess, followed = self._followed(before, view)
            if not sure_ones(reference, followed & ~reference.held_back)[1]:
                starts += self._essential(guess, followed, view)
            rough, sure = rough_pose(reference, guess, followed, starts, view, self.sigma_px, prior)
        if not sure and before is not None:
            home, returned = follow_patches(view.tracking, before.tracking, guess)
            followed &= returned & (np.linalg.norm(home - self._pixels, axis=1) < MAX_RETURN_PX)
            starts = [start, self._last, np.eye(4), *self._essential(guess, followed, view)]
            rough, sure = rough_pose(reference, guess, followed, starts, view, self.sigma_px)
        there, known = _seen_at(reference, view, rough)
        target = np.where(known[:, None] & ~followed[:, None], there, guess).astype(np.float32)
        pixels, found = search(reference, view, rough, target, 1 if sure else 3)
        return posed(reference, pixels, found & known, rough, view, self.sigma_px, prior)

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
        """Follow the noise of the corners that agree: 1.48 times the median of `near_residuals`,
        and what neighbours of them have in common."""
        if tracked.fit is None or len(tracked.fit.whitened) < 2 * MIN_CORNERS:
            return
        _, across = near_residuals(tracked.fit, self.sigma_px)
        if len(across) >= MIN_CORNERS:
            seen = 1.48 * float(np.median(np.abs(across)))
            self.noise_px = SIGMA_MEMORY * self.noise_px + (1.0 - SIGMA_MEMORY) * seen
        if np.isfinite(tracked.shared):
            self.shared = SIGMA_MEMORY * self.shared + (1.0 - SIGMA_MEMORY) * tracked.shared

    @property
    def sigma_px(self) -> float:
        """1-sigma of a corner's position that poses are found with: the measured one, in bounds."""
        return float(np.clip(self.noise_px, LEAST_SIGMA_PX, MOST_SIGMA_PX))

    @property
    def scatter(self) -> float:
        """Variance of a corner's position as measured, over the one that poses are found with."""
        return float((self.noise_px / self.sigma_px) ** 2)

    @property
    def judged_px(self) -> float:
        """1-sigma of a corner's position that poses are judged with."""
        return judged_px(self.sigma_px)

    def look(self, view: View, reference: Reference, T_ref_cam: Float64) -> Tracked:
        """What the corners of some keyframe say about a frame that is thought to be at `T_ref_cam`
        `[4, 4]` in it; changes nothing."""
        there, known = _seen_at(reference, view, T_ref_cam)
        target = np.where(known[:, None], there, reference.pixels).astype(np.float32)
        pixels, found = search(reference, view, T_ref_cam, target, 3)
        distance = judge_camera_pose(
            reference.points,
            view.straightened(pixels),
            view.lens,
            T_ref_cam,
            FOLLOWED * self.judged_px,
        )
        near = found & known & (distance < AGREED)
        return posed(reference, pixels, near, T_ref_cam, view, self.sigma_px)

    def _few(self) -> Bool | None:
        """Enough corners `[N]` of proven depth for a first pose; None without."""
        assert self.reference is not None
        usable = ~self.reference.held_back & np.isfinite(self._pixels).all(axis=1)
        sure, enough = sure_ones(self.reference, usable)
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


def _seen_at(reference: Reference, view: View, T_ref_cam: Float64) -> tuple[Float64, Bool]:
    """Where a view at `T_ref_cam` `[4, 4]` sees the corners, `[N, 2]` pixels, and which it can."""
    there = view.bent(project_points(reference.points, T_ref_cam, view.lens))
    return there, np.asarray(np.all(np.isfinite(there), axis=1))
