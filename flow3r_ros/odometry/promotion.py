"""A frame that becomes a keyframe: what the back end is given of it, and what the front end goes on
with until it is built."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.config import EngineSettings
from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.lie import invert, rotation_angle
from flow3r_ros.odometry.backend import Order, starting_sigma
from flow3r_ros.odometry.corner_pose import MIN_CORNERS
from flow3r_ros.odometry.corners import Reference, Tracked
from flow3r_ros.odometry.depth import carry
from flow3r_ros.odometry.patches import WINDOW
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64, UInt8

FEW_CORNERS = 0.5
"""share of a keyframe's corners that must still be seen; below it a new keyframe is due"""
KEYFRAME_LIKENESS = 0.35
"""correlation of the picture with the warped keyframe below which a new one is due: well before
a pose is no longer believed (`verification.LIKENESS`)"""
URGENT_CORNERS, URGENT_LIKENESS = 0.3, 0.28
"""as FEW_CORNERS and KEYFRAME_LIKENESS, below which the next frames may be lost without another
keyframe"""
PATIENCE_NS = 3_000_000_000
"""time that a keyframe waits for the one being built, for each share of its corners above
URGENT_CORNERS: the back end needs half a second on two shared cores, and a front end that waits for
it drops frames, so that the next ones are further apart. It costs no accuracy that shows:
kitti_curve_51 from six frames .085 to .174 m, .092 to .170 where nothing is patient"""
STRONG, WEAK, FEW_STRONG = 0.005, 0.0005, 1 / 3000
"""smallest eigenvalue of a corner over that of the strongest one, and how many like that a pixel:
where a picture shows little, or is blurred, and has fewer, weak ones are taken as well, which are
found less exactly. On visslam_handheld_desk they take the alarms of its clean stretch from 14 % to
1.8 %"""
MIN_GAP = 4
"""frames from one keyframe to the next, unless corners run out"""


def keyframe_due(
    tracked: Tracked, reference: Reference, likeness: float, since: int, settings: EngineSettings
) -> bool:
    """Whether a frame, `since` frames after the keyframe it was tracked from, has moved or turned
    on far enough, looks too different, or corners run out."""
    few = np.count_nonzero(tracked.agreed) < FEW_CORNERS * len(tracked.agreed)
    T = tracked.T_ref_cam
    moved = float(np.linalg.norm(T[:3, 3])) > settings.keyframe_distance * reference.median_depth
    turned = rotation_angle(T[:3, :3]) > np.radians(settings.keyframe_angle)
    differs = likeness < KEYFRAME_LIKENESS
    return bool(few or ((moved or turned or differs) and since >= MIN_GAP))


def patience_ns(tracked: Tracked, before: Tracked | None, likeness: float) -> int:
    """How long after the keyframe before, by the camera's clock, a keyframe that is due waits for
    that one to be built in its own time: the more the next frame will see, the longer. `before` is
    the frame before, None: it was that keyframe."""
    share = float(np.mean(tracked.agreed))
    last = 1.0 if before is None else float(np.mean(before.agreed))
    share -= max(last - share, 0.0)
    if share < URGENT_CORNERS or likeness < URGENT_LIKENESS:
        return 0
    return int(PATIENCE_NS * (share - URGENT_CORNERS))


def first_order(view: View, pose: Float64, corners: int, sigma_px: float) -> Order:
    """The first keyframe of a segment, at `pose` `[4, 4]`: only corners, of which nothing is
    known."""
    found = new_corners(view, np.empty((0, 2), np.float32), corners)
    nothing = np.full(len(found), np.nan)
    return Order(
        view, pose, np.empty(0, np.int64), np.empty((0, 2), np.float32),
        np.arange(len(found)), found, nothing, np.full(len(found), np.inf), sigma_px,
    )  # fmt: skip


def promoted(
    view: View,
    reference: Reference,
    tracked: Tracked,
    pose: Float64,
    next_id: int,
    corners: int,
    sigma_px: float,
) -> tuple[Order, Reference]:
    """The keyframe of a frame that was tracked from `reference` to `pose` `[4, 4]`.

    Its followed corners stay, where they were seen and at the depth they have there; new ones
    (numbered from `next_id`, up to `corners` in all) take what
    the keyframe's depth says there. `sigma_px` is the 1-sigma of a corner's position.
    """
    kept = tracked.agreed
    pixels = tracked.pixels[kept]
    found = new_corners(view, pixels, corners)
    depth, came_from = carry(reference.depth, tracked.T_ref_cam, view.camera)
    inverse, sigma = depth.at(found, view.ratio)
    new_ids = np.arange(next_id, next_id + len(found))
    order = Order(view, pose, reference.ids[kept], pixels, new_ids, found, inverse, sigma, sigma_px)
    points = _moved(reference.points.only(kept), tracked.T_ref_cam)
    measured = np.isfinite(inverse) & (inverse > 0)
    typical = float(np.median(points.inverse)) if len(points) else 1.0
    start = np.where(measured, inverse, typical)
    wide = starting_sigma(start, np.where(measured, sigma, typical))
    provisional = Reference(
        view,
        pose,
        depth,
        seen_through(reference.moving, came_from),
        np.concatenate([order.ids, new_ids]),
        np.concatenate([pixels, found]),
        DepthPoints(
            view.rays(np.concatenate([pixels, found])),
            np.concatenate([points.inverse, start]),
            np.concatenate([points.sigma, wide]),
        ),
    )
    return order, provisional


def as_place(
    view: View | None, reference: Reference, tracked: Tracked | None, pose: Float64
) -> Reference | None:
    """A frame at `pose` `[4, 4]`, with the corners that it saw, as a place to come back to: what
    `reference` knows, seen from there. None where too few corners spoke for its pose."""
    if view is None or tracked is None:
        return None
    seen = tracked.agreed
    _, mine, theirs = np.intersect1d(reference.ids, tracked.ids[seen], return_indices=True)
    if len(mine) < MIN_CORNERS:
        return None
    T = invert(reference.pose) @ pose
    depth, came_from = carry(reference.depth, T, view.camera)
    return Reference(
        view, pose, depth, seen_through(reference.moving, came_from), reference.ids[mine],
        tracked.pixels[seen][theirs], _moved(reference.points.only(mine), T),
    )  # fmt: skip


def _moved(points: DepthPoints, T_ref_cam: Float64) -> DepthPoints:
    """Points of a keyframe in the optical frame of a camera that sees them."""
    T = invert(T_ref_cam)
    turned = points.rays @ T[:3, :3].T
    q = turned + points.inverse[:, None] * T[:3, 3]
    z = np.maximum(q[:, 2], 1e-6)
    return DepthPoints(
        q / z[:, None], points.inverse / z, points.sigma * np.abs(turned[:, 2]) / z**2
    )


def seen_through(mask: Bool, came_from: Float32) -> Bool:
    """A keyframe's mask seen from a frame, bool `[h, w]`."""
    if not mask.any():
        return np.zeros(came_from.shape[:2], np.bool_)
    found = cv2.remap(
        mask.view(np.uint8), came_from, np.empty((0, 0), np.float32), cv2.INTER_NEAREST
    )
    return np.asarray(found, np.bool_)


def seen_corners(
    tracked: Tracked | None, reference: Reference | None
) -> tuple[NDArray[np.int64], Float32]:
    """Corners of a keyframe that agree with the pose of a frame: ids `[N]`, and where they were
    seen `[N, 2]`, as shares of width and height; none where nothing was tracked."""
    if tracked is None or reference is None:
        return np.empty(0, np.int64), np.empty((0, 2), np.float32)
    lens = reference.view.lens
    shares = (tracked.pixels + 0.5) / np.array([lens.width, lens.height], np.float32)
    return tracked.ids[tracked.agreed], np.asarray(shares[tracked.agreed], np.float32)


def new_corners(view: View, taken: Float32, count: int) -> Float32:
    """Further corners of a picture, `[M, 2]` pixels, away from those `taken` `[N, 2]`, up to
    `count` in all."""
    wanted = count - len(taken)
    if wanted <= 0:
        return np.empty((0, 2), np.float32)
    height, width = view.tracking.shape
    distance = max(6, round(0.55 * float(np.sqrt(height * width / count))))
    mask = np.full((height, width), 255, np.uint8)
    if view.ignored is not None:
        hidden = cv2.resize(view.ignored.view(np.uint8), (width, height))
        mask[cv2.dilate(hidden, np.ones((WINDOW, WINDOW), np.uint8)) > 0] = 0
    for x, y in taken:
        cv2.circle(mask, (round(float(x)), round(float(y))), distance, 0, -1)
    mask[:WINDOW], mask[-WINDOW:], mask[:, :WINDOW], mask[:, -WINDOW:] = 0, 0, 0, 0
    found = _strongest(view, wanted, STRONG, distance, mask)
    if len(found) + len(taken) < FEW_STRONG * height * width:
        found = _strongest(view, wanted, WEAK, distance, mask)
    return found


def _strongest(view: View, wanted: int, least: float, distance: int, mask: UInt8) -> Float32:
    """Corners `[M, 2]` of at least that strength, the strongest first."""
    found = cv2.goodFeaturesToTrack(view.tracking, wanted, least, distance, mask=mask, blockSize=5)
    return np.empty((0, 2), np.float32) if found is None else np.asarray(found, np.float32)[:, 0]
