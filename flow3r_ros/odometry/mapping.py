"""Keyframe geometry: points are found again in older keyframes, and poses and depths adjusted.

Where a keyframe has moved into the view of older ones, their points are looked for at the place
where the map projects them, with the older picture brought to the new attitude as template, and the
new keyframe's own points in the older pictures the same way. Re-observation is what keeps the
trajectory from drifting: links to the neighbours alone let rotation grow.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from flow3r_ros.geometry.camera_pose import project_points
from flow3r_ros.geometry.lie import invert
from flow3r_ros.odometry.bundle import Adjusted, Problem, adjust
from flow3r_ros.odometry.keyframes import Ids, Keyframe, KeyframeMap
from flow3r_ros.odometry.patches import WINDOW, find_patches, plane_homography
from flow3r_ros.types import Float32, Float64

ADJUSTED = 15
"""newest keyframes whose poses are free in an adjustment"""
FIXED = 12
"""older keyframes that hold them, those that see most of the same points"""
SEARCHED = 8
"""older keyframes that a new one is compared with"""
MIN_SEEN = 15
"""points that must project into a keyframe for it to be worth a search"""
MAX_TURN = 0.7
"""rad between two keyframes beyond which patches do not look alike"""
MAX_SHIFT_PX = 25.0
"""pixels from its projection within which a point is found again"""
LEAST_WAY = 0.02
"""median depths that keyframes must be away from the first one to say what the unit is"""
PROBED, WORTHWHILE = 30, 0.05
"""points of a pair of keyframes that are looked for first, and the share of them that must be found
for the others to be worth the search: most pairs see the same points from too far apart"""
OUTLIER = 4.0
"""whitened residual after an adjustment beyond which an observation is taken away"""
LENS_SIGMA = (0.005, 0.02)
"""1-sigma of the logarithm of the focal length about the given one, and of the radial distortion
beyond the given. Calibrations are off by about twice as much in the first, and so is what an
adjustment says of it over what it claims (eight factory clips, where the truth is known: .98 to
1.02)"""
ASSUMED_SIGMA = (0.1, 0.001)
"""the same of a camera that nobody calibrated: a straight lens, since a distortion and a focal
length that are both free run away together where a camera drives straight on"""
LENS_VIEWS = 5
"""keyframes without which the lens stays as it is"""
SIGMA_FLOOR = 0.005
"""relative sigma of inverse depth that no adjustment goes below: patches share their errors"""


@dataclass(frozen=True)
class Search:
    """How many points were looked for in other keyframes, and found."""

    asked: int = 0
    found: int = 0


def find_again(map_: KeyframeMap, new: Keyframe) -> Search:
    """Observations between a new keyframe and older ones; adds them to both."""
    asked = found = 0
    for other in _candidates(map_, new):
        for source, target in ((other, new), (new, other)):
            ids, pixels, expected = _visible(map_, source, target)
            asked += len(ids)
            first = np.zeros(len(ids), np.bool_)
            first[:: max(1, len(ids) // PROBED)] = True
            seen = _search(map_, source, target, ids[first], pixels[first], expected[first])
            found += seen
            if seen >= WORTHWHILE * np.count_nonzero(first):
                rest = ~first
                found += _search(map_, source, target, ids[rest], pixels[rest], expected[rest])
    return Search(asked, found)


def _search(
    map_: KeyframeMap,
    source: Keyframe,
    target: Keyframe,
    ids: Ids,
    pixels: Float32,
    expected: Float32,
) -> int:
    """How many points of one keyframe were found in another, which observes them."""
    if not len(ids):
        return 0
    T = invert(source.pose) @ target.pose
    inverse = float(np.median(map_.seen_from(ids, source.pose).inverse))
    where, good = find_patches(
        source.view.tracking,
        target.view.tracking,
        plane_homography(T, inverse, source.view.lens),
        pixels,
        expected,
        levels=2,
        back=True,
    )
    good &= np.linalg.norm(where - expected, axis=1) < MAX_SHIFT_PX
    target.observe(ids[good], where[good])
    return int(np.count_nonzero(good))


def _candidates(map_: KeyframeMap, new: Keyframe) -> list[Keyframe]:
    """Older keyframes worth a search: those whose own points the new one should see most of."""
    scored = []
    facing = new.pose[:3, 2]
    for other in map_.keyframes:
        if other is new or other.view.tracking.shape != new.view.tracking.shape:
            continue
        if float(other.pose[:3, 2] @ facing) < np.cos(MAX_TURN):
            continue
        count = len(_visible(map_, other, new)[0])
        if count >= MIN_SEEN:
            scored.append((count, other.id, other))
    scored.sort(key=lambda item: (-item[0], item[1]))
    return [other for _, _, other in scored[:SEARCHED]]


def _visible(map_: KeyframeMap, source: Keyframe, target: Keyframe) -> tuple[Ids, Float32, Float32]:
    """Points hosted by `source` that `target` should see and does not hold yet: ids, pixels in the
    source, expected pixels in the target."""
    hosted = map_.points.ids[map_.points.hosts == source.id]
    ids = np.setdiff1d(hosted, target.ids)
    if not len(ids):
        return ids, np.empty((0, 2), np.float32), np.empty((0, 2), np.float32)
    points = map_.seen_from(ids, target.pose)
    lens = target.view.lens
    there = project_points(points, np.eye(4), lens)
    edge = np.array([lens.width, lens.height]) - WINDOW
    with np.errstate(invalid="ignore"):
        inside = (points.inverse > 0) & ((there > WINDOW) & (there < edge)).all(axis=1)
    ids, there = ids[inside], target.view.bent(there[inside])
    pixels = source.pixels[np.searchsorted(source.ids, ids)]
    return ids, pixels, there.astype(np.float32)


def adjust_map(map_: KeyframeMap, sigma_px: float) -> tuple[Adjusted, list[int]] | None:
    """Adjust the newest keyframes and the points they see; outlying observations go. `sigma_px` is
    the 1-sigma of an observation.

    Returns the outcome and the ids of the keyframes that were free, oldest first; None where
    nothing can be adjusted.
    """
    newest = map_.keyframes[-ADJUSTED:]
    free = newest if len(map_.keyframes) > ADJUSTED else newest[1:]
    if not free:
        return None
    seen = np.unique(np.concatenate([keyframe.ids for keyframe in free]))
    hosts = map_.points.hosts[map_.points.rows(seen)]
    views = _involved(map_, free, seen, hosts)
    if len(views) == len(free):  # nothing older sees their points: the oldest holds the world
        free = free[1:]
    order = {keyframe.id: index for index, keyframe in enumerate(views)}
    seen = seen[np.isin(hosts, list(order))]
    points = map_.points.only(map_.points.rows(seen))
    point, target, observed = _observations(views, seen, points.hosts)
    watched = np.bincount(point, minlength=len(seen)) > 0
    kept = np.flatnonzero(watched)
    lookup = np.full(len(seen), -1)
    lookup[kept] = np.arange(len(kept))
    points = points.only(kept)
    free_ids = {keyframe.id for keyframe in free}
    problem = Problem(
        poses=np.stack([keyframe.pose for keyframe in views]),
        free=np.array([keyframe.id in free_ids for keyframe in views]),
        host=np.array([order[int(host)] for host in points.hosts], np.intp),
        rays=points.rays,
        inverse=points.inverse,
        prior=points.prior,
        prior_sigma=points.prior_sigma,
        point=lookup[point],
        target=target,
        observed=observed,
        weight=np.ones(len(point)),
        lens=free[-1].view.lens,
        sigma_px=sigma_px,
        focal=free[-1].view.focal,
        bend=free[-1].view.bend,
        lens_sigma=_lens_sigma(views),
    )
    result = adjust(problem)
    if np.count_nonzero(~problem.free) < 2:
        result = _at_scale_of(result, problem)
    for keyframe, pose in zip(views, result.poses, strict=True):
        if keyframe.id in free_ids:
            keyframe.pose = pose
    map_.refocus(result.focal, result.focal_sigma, result.bend)
    sigma = np.maximum(result.sigma, SIGMA_FLOOR * result.inverse)
    map_.change(map_.points.rows(points.ids), result.inverse, sigma)
    bad = result.distance > OUTLIER
    for index, keyframe in enumerate(views):
        keyframe.forget(points.ids[problem.point[bad & (target == index)]])
    return result, [keyframe.id for keyframe in views if keyframe.id in free_ids]


def _lens_sigma(views: list[Keyframe]) -> tuple[float, float] | None:
    if len(views) < LENS_VIEWS:
        return None
    return ASSUMED_SIGMA if views[-1].view.lens.estimated else LENS_SIGMA


def _at_scale_of(result: Adjusted, problem: Problem) -> Adjusted:
    """The outcome at the unit of the poses before: with one fixed keyframe nothing but the points'
    first depths holds it, and a unit that changes with every adjustment would bend the
    trajectory. A camera that has only turned keeps what the depths say."""
    centre = problem.poses[~problem.free][0][:3, 3]
    way_before, way = (
        float(np.linalg.norm(poses[:, :3, 3] - centre, axis=1).sum())
        for poses in (problem.poses, result.poses)
    )
    if min(way_before, way) < LEAST_WAY / float(np.median(result.inverse)):
        return result
    ratio = way_before / way
    poses = result.poses.copy()
    poses[:, :3, 3] = centre + ratio * (poses[:, :3, 3] - centre)
    units = np.tile([ratio] * 3 + [1.0] * 3, int(problem.free.sum()))
    return replace(
        result,
        poses=poses,
        inverse=result.inverse / ratio,
        sigma=result.sigma / ratio,
        covariance=result.covariance * np.outer(units, units),
    )


def _involved(map_: KeyframeMap, free: list[Keyframe], seen: Ids, hosts: Ids) -> list[Keyframe]:
    """The free keyframes and the older ones that see or host most of their points, oldest first."""
    names = {keyframe.id for keyframe in free}
    shared = []
    for keyframe in map_.keyframes:
        if keyframe.id not in names:
            count = int(np.isin(keyframe.ids, seen).sum()) + int(np.sum(hosts == keyframe.id))
            if count:
                shared.append((count, keyframe.id))
    chosen = {id_ for _, id_ in sorted(shared, reverse=True)[:FIXED]} | names
    return [keyframe for keyframe in map_.keyframes if keyframe.id in chosen]


def _observations(
    views: list[Keyframe], seen: Ids, hosts: Ids
) -> tuple[np.ndarray, np.ndarray, Float64]:
    """Point index, keyframe index and pixel of every observation but those in a point's own
    host."""
    point, target, observed = [], [], []
    for index, keyframe in enumerate(views):
        common, mine, theirs = np.intersect1d(
            keyframe.ids, seen, assume_unique=True, return_indices=True
        )
        if not len(common):
            continue
        foreign = hosts[theirs] != keyframe.id
        point.append(theirs[foreign])
        target.append(np.full(int(foreign.sum()), index))
        observed.append(keyframe.pixels[mine[foreign]].astype(np.float64))
    return np.concatenate(point), np.concatenate(target), np.concatenate(observed)
