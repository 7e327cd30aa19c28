"""The depth of a keyframe: what geometry measures, completed by what the network says of the rest.

The two are kept apart. What was measured is carried on to the next keyframe and told to the
network; what was guessed is published, and forgotten with its keyframe: a guess that is handed on
would come back as evidence for itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flow3r_ros.geometry.correspondence import Correspondence, Matcher, along
from flow3r_ros.geometry.depth_map import DepthMap
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.triangulation import moving_mask
from flow3r_ros.odometry.depth import bent_onto, carry, fit_to, fuse, of_points, triangulated
from flow3r_ros.odometry.keyframes import Keyframe, KeyframeMap

MIN_COMMON, MOST_COMMON = 20, 100
"""points that two keyframes must share for their places to lead the dense match (flow from nothing
bridges some 30 pixels, a car is farther from keyframe to keyframe), and how many are enough"""
MIN_SHARE = 0.15
"""covisible share below which a dense match is not used"""
POINT_SIGMA = 0.1
"""relative sigma of inverse depth up to which the map's points count as measured"""
SINGLE_SIGMA = 0.25
"""relative sigma at least of depth from one picture, whatever the network says of itself: where
nothing was measured nothing confirms it (chosen on the room of ../shared/cases, where it is sure of
depths that are wrong by 17 %)"""


Links = dict[tuple[int, int], Correspondence]
"""(older, newer) keyframe -> dense matches between them"""


def match(matcher: Matcher, keyframe: Keyframe, others: Sequence[Keyframe]) -> Links:
    """The dense match of a keyframe with the last of the `others` (oldest first) that has its size;
    empty where there is none, or it covers too little.

    A second one costs 45 ms and brought nothing (AbsRel .136 instead of .137 on RedKitchen's first
    150 frames, the same ATE there and on KITTI): what older ones measured is carried on.
    """
    size = keyframe.view.gray.shape
    other = next((each for each in reversed(others) if each.view.gray.shape == size), None)
    if other is None:
        return {}
    link = matcher.flow(keyframe.view.picture, other.view.picture, _start(keyframe, other))
    return {(other.id, keyframe.id): link.reversed()} if link.share >= MIN_SHARE else {}


def _start(keyframe: Keyframe, other: Keyframe) -> Correspondence | None:
    """Where the pixels of a keyframe are in another one, by the points that both see; None where
    these are too few."""
    common, mine, theirs = np.intersect1d(
        keyframe.ids, other.ids, assume_unique=True, return_indices=True
    )
    if len(common) < MIN_COMMON:
        return None
    some = np.linspace(0, len(common) - 1, min(len(common), MOST_COMMON)).astype(int)
    ratio, (height, width) = keyframe.view.ratio, keyframe.view.gray.shape
    pixels = keyframe.pixels[mine[some]], other.pixels[theirs[some]]
    matches = np.hstack(pixels) / np.tile(ratio, 2)
    return along(matches.astype(np.float32), width, height)


def measure(keyframe: Keyframe, links: Links, map_: KeyframeMap) -> None:
    """Give a keyframe the depth that geometry knows of it (carried over from the keyframe it is
    matched with, triangulated with that, and at the map's points) and the pixels that move."""
    camera = keyframe.view.camera
    maps: list[DepthMap] = []
    matched = [older for older, newer in links if newer == keyframe.id]
    if matched:
        other = map_.find(matched[0])
        T = invert(keyframe.pose) @ other.pose
        link = keyframe.view.straightened_link(links[other.id, keyframe.id].reversed())
        carried, _ = carry(other.measured.where(~other.moving), invert(T), camera)
        keyframe.moving = moving_mask(link, camera, T, carried.depth())
        maps += [carried, triangulated(link, camera, T)]
    points = map_.seen_from(keyframe.ids, keyframe.pose)
    sure = (points.inverse > 0) & (points.sigma < POINT_SIGMA * points.inverse)
    maps.append(
        of_points(
            keyframe.pixels[sure] / keyframe.view.ratio, points.only(sure), keyframe.view.gray.shape
        )
    )
    keyframe.measured = keyframe.view.seen(fuse(maps).where(~keyframe.moving))


def complete(keyframe: Keyframe, network: DepthMap | None) -> None:
    """Give a keyframe its depth: the network's, brought onto what was measured; where the network
    said nothing that can be used, only that."""
    measured = keyframe.measured
    if network is None:
        keyframe.depth = measured
    elif not np.isfinite(measured.inverse).any():
        least = np.float32(SINGLE_SIGMA) * network.inverse
        keyframe.depth = DepthMap(network.inverse, np.fmax(network.sigma, least))
    else:
        shape = fit_to(network, measured)
        keyframe.depth = bent_onto(shape, measured, keyframe.view.gray, keyframe.moving)
    keyframe.depth = keyframe.view.seen(keyframe.depth)
