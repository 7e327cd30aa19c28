"""Evidence of a window from what the odometry knows anyway: links, poses, triangulated depth.
Nothing is computed twice.

Only depth that geometry knows well enters; the network is not to be told its own guesses.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.evidence import build_evidence
from flow3r_ros.odometry.assist import Track
from flow3r_ros.odometry.bundle import Bundle
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Evidence

SURE = 0.2
"""relative sigma above which depth does not count as evidence"""


def window_evidence(
    companions: list[View],
    batch: list[View],
    tracks: list[Track | None],
    bundle: Bundle,
    grid: tuple[int, int],
) -> Evidence:
    """Evidence of a window of remembered views and new ones, oldest first, on the network's `grid`
    (w, h).

    New views carry their provisional pose. Without the assist (no tracks) only the rays are told,
    and only of a known camera.
    """
    views = [*companions, *batch]
    steps = [
        _between(before, after, track, bundle)
        for before, after, track in _pairs(companions, batch, tracks)
    ]
    poses = np.stack([view.pose for view in views])
    depths: list[DepthMap | None] = [
        _known(DepthMap(view.inverse_depth, view.sigma)) for view in companions
    ]
    depths += [
        None if track is None or track.depth is None else _known(track.depth) for track in tracks
    ]
    if all(track is None for track in tracks):
        poses, depths = np.repeat(np.eye(4)[None], len(views), axis=0), [None] * len(views)
        steps = [None] * len(steps)
    backwards = [None if step is None else step.reversed() for step in steps]
    return build_evidence(views[-1].camera, poses, depths, [None, *backwards], [*steps, None], grid)


def _pairs(
    companions: list[View], batch: list[View], tracks: list[Track | None]
) -> list[tuple[View, View, Track | None]]:
    """Neighbours in the window, each with the track of the later one (None between keyframes)."""
    views = [*companions, *batch]
    later = ([None] * len(companions) + tracks)[1:]
    return list(zip(views[:-1], views[1:], later, strict=True))


def _between(
    before: View, after: View, track: Track | None, bundle: Bundle
) -> Correspondence | None:
    """Correspondence of two neighbours, from the new frame's track or the links between
    keyframes."""
    if track is not None:
        links = [*track.links, *([track.step] if track.step is not None else [])]
        return next((link.correspondence for link in links if link.reference is before), None)
    return bundle.links_of(before.id).get(after.id)


def _known(map_: DepthMap) -> DepthMap:
    with np.errstate(invalid="ignore"):
        return map_.where(map_.sigma < SURE * map_.inverse)
