"""Refinement after a run: all keyframes, pictures between them, and the points they see, adjusted
together.

Dense flow measures to half a pixel of a small grid and links few keyframes; multi-view tracks
(`slam.tracks`) measure to half a pixel of the picture and span many, which the rotation gains most
from. Keyframes start where the odometry or the graph put them; pictures between them are placed by
the points of the keyframes, then adjusted with them (`slam.adjustment`). A chain of keyframes that
is broken stays so, however well either side fits: few pictures, and those that many stay without a
place in, are begun from their matches alone as well (`slam.from_scratch`).

What a calibration leaves of the lens bends depth a little in every picture, always the same way:
on a forward drive the unit then grows or shrinks with every step, however many points there are.
So the last adjustment finds radial distortion, too. Poses given, adjusted, adjusted with the lens
and begun from scratch are judged by matches that none of them was fitted to (`slam.held_out`): the
best stays, without the pictures that most of those matches contradict.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from flow3r_ros.geometry.lie import average_rotations, rigid, rotation_angle
from flow3r_ros.slam.adjustment import Adjustment, Solution
from flow3r_ros.slam.bridge import bridged
from flow3r_ros.slam.from_scratch import poses_from_scratch
from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.picture_matches import PictureMatches
from flow3r_ros.slam.pictures import RefineView
from flow3r_ros.slam.tracks import PictureFeatures, features_of, matched, pairs_to_match
from flow3r_ros.types import Float32, Float64

ROUNDS = 2
"""times that tracks are triangulated and adjusted, without the lens and with it: better poses find
more of them"""
MIN_POSED = 2
"""pictures whose pose is known without which there is nothing to adjust: the camera hardly moved,
or odometry lost its way at once"""
MIN_SHIFT_PX = 2.0
"""median shift of the matches of a pair below which it says nothing of depth"""
MOST_PLACINGS = 5
"""times that pictures without a pose are tried: each new one brings points for the next"""
TIE = 1.02
"""times the error of the poses as given on matches held out up to which refined ones are taken:
where both explain them as well, the one that was made from more pictures and finer features"""
SCRATCH, SCRATCH_SHARE = 64, 0.9
"""pictures up to which, and share of them with a pose below which, all is begun from scratch, too:
what odometry says of a handful of still images may be wrong everywhere, and a chain that broke
leaves pictures out. With nerf_fox_50 it takes as long as the adjustment itself"""
DOUBTED = 0.5
"""share of a picture's held-out matches that its pose must explain: one that a repeated texture put
somewhere else agrees with what put it there, and with little else. Of 115 pictures of five sets of
the factory that lay right none had below .63, the one that lay wrong .40 to .43"""
ALONE_SHARE = 0.5
"""share of the pictures that a model must place where odometry placed none to compare it with: of
24 pictures along blank walls the model of 10 was off by 12 % of the way"""
MISSED_PX = 8.0
"""error in pixels that the matches of a picture without a pose count with where two solutions are
compared"""


@dataclass(frozen=True)
class Refined:
    """What refinement found: `poses` `[4, 4]` in the map, by frame id, of the pictures that see
    enough, none where what was given is no worse; the number of `points` and `observations`; mean
    reprojection error in pixels `before_px` (poses as given) and `after_px`; `turn_deg` median turn
    of the poses that were given; `bend_px` what the lens moves the corners of pictures by; robust
    rms of matches held out in pixels, `held_out_before_px` (poses as given) and
    `held_out_after_px`; `depths` by frame id, pixels `[N, 2]` and depth `[N]` of its points;
    `bridged` `[4, 4]` by frame id, where motion alone puts pictures that see too little
    (`slam.bridge`)."""

    poses: dict[int, Float64]
    points: int
    observations: int
    before_px: float
    after_px: float
    turn_deg: float
    bend_px: float = 0.0
    held_out_before_px: float = 0.0
    held_out_after_px: float = 0.0
    depths: dict[int, tuple[Float32, Float64]] = field(default_factory=dict)
    bridged: dict[int, Float64] = field(default_factory=dict)

    def units(self, keyframes: Mapping[int, MapKeyframe]) -> dict[int, float]:
        """What the depth of keyframes, by frame id, is multiplied by to agree with the points."""
        found = {
            id_: keyframe.unit_in(*self.depths[id_])
            for id_, keyframe in keyframes.items()
            if id_ in self.depths
        }
        return {id_: unit for id_, unit in found.items() if unit is not None}


NOTHING = Refined({}, 0, 0, 0.0, 0.0, 0.0)
"""where pictures have too little in common"""
NONE = Solution({}, 0, 0, 0.0, 0.0, [], {})
"""where there is nothing to adjust"""


def refine(
    views: Sequence[RefineView],
    loops: Iterable[tuple[int, int]] = (),
    say: Callable[[str], None] = lambda _: None,
) -> Refined:
    """Adjust pictures together.

    Args:
        views: in the order of their frames; with fewer than `MIN_POSED` poses up to `SCRATCH` of
            them are begun from their matches alone.
        loops: pairs of frame ids that show one place.
        say: told what is being done.

    Raises:
        ConfigError: pycolmap is not installed.
    """
    posed = [at for at, view in enumerate(views) if view.pose is not None]
    few = len(views) <= SCRATCH
    if len(posed) < MIN_POSED and not few:
        return NOTHING
    order = {view.frame_id: at for at, view in enumerate(views)}
    say(f"features of {len(views)} pictures")
    features = [features_of(view.gray(), few) for view in views]
    matches = PictureMatches([view.camera for view in views], [each.pixels for each in features])
    pairs = pairs_to_match(features, posed, [(order[a], order[b]) for a, b in loops])
    say(f"matches of {len(pairs)} pairs")
    for first, second in pairs:
        rows = matched(features[first], features[second])
        shift = features[first].pixels[rows[:, 0]] - features[second].pixels[rows[:, 1]]
        if len(rows) and np.median(np.linalg.norm(shift, axis=1)) > MIN_SHIFT_PX:
            matches.add(first, second, rows)
    given = {at: pose for at, view in enumerate(views) if (pose := view.pose) is not None}
    found, before_px = _adjusted(matches, given, say) if len(posed) >= MIN_POSED else (NONE, 0.0)
    if few or len(found.poses) < SCRATCH_SHARE * len(views):
        say("poses from scratch")
        again, _ = _adjusted(matches, poses_from_scratch(matches), say)
        found = min((found, again), key=lambda each: _missed(matches, each))
    found = believed(matches, found)
    if len(posed) < MIN_POSED and len(found.poses) < ALONE_SHARE * len(views):
        return NOTHING
    return _in_place(views, features, matches, given, found, before_px)


def _adjusted(
    matches: PictureMatches, poses: Mapping[int, Float64], say: Callable[[str], None]
) -> tuple[Solution, float]:
    """Pictures adjusted from some of their poses `[4, 4]`; the mean error before."""
    adjustment = Adjustment(matches, poses)
    before_px = 0.0
    for turn in range(ROUNDS):
        say(f"adjustment {turn + 1} of {ROUNDS}")
        error = adjustment.round()
        before_px = before_px or error
        if turn == 0:
            for _ in range(MOST_PLACINGS):
                if not adjustment.place_more():
                    break
                adjustment.round()
    pinhole = adjustment.solution()
    for turn in range(ROUNDS):
        say(f"adjustment with the lens {turn + 1} of {ROUNDS}")
        adjustment.round(lens=True)
    lens = adjustment.solution()
    return min((lens, pinhole), key=lambda each: _missed(matches, each)), before_px


def _missed(matches: PictureMatches, found: Solution) -> float:
    """What is held out judges a solution: error in pixels, pictures without a pose included."""
    return matches.held_out_px(found.poses, found.cameras, MISSED_PX)


def believed(matches: PictureMatches, found: Solution) -> Solution:
    """A solution without the pictures that what is held out contradicts, worst first: the matches
    of one that lies wrong speak against its neighbours, too."""
    poses = dict(found.poses)
    while poses:
        agreement = matches.agreement(poses, found.cameras)
        worst = min(poses, key=lambda at: agreement.get(at, 1.0))
        if agreement.get(worst, 1.0) >= DOUBTED:
            break
        del poses[worst]
    return replace(found, poses=poses, depths={at: found.depths[at] for at in poses})


def _in_place(
    views: Sequence[RefineView],
    features: Sequence[PictureFeatures],
    matches: PictureMatches,
    given: Mapping[int, Float64],
    found: Solution,
    before_px: float,
) -> Refined:
    """The adjusted poses, brought back to where and how large the map was; none where those that
    were given explain what was held out better."""
    shared = sorted(found.poses.keys() & given.keys())
    if not found.poses:
        return NOTHING
    if len(shared) >= MIN_POSED:
        start = np.stack([given[at] for at in shared])
        R, scale, t = _alignment(np.stack([found.poses[at] for at in shared]), start)
    else:
        R, scale, t = _anchor(found, given, shared[0] if shared else min(found.poses))
    poses = {
        at: rigid(R @ pose[:3, :3], scale * R @ pose[:3, 3] + t) for at, pose in found.poses.items()
    }
    turns = [rotation_angle(given[at][:3, :3].T @ poses[at][:3, :3]) for at in shared]
    given_px, found_px = (
        matches.held_out_px({at: poses_[at] for at in shared}, cameras)
        for poses_, cameras in ((given, None), (found.poses, found.cameras))
    )
    kept = {views[at].frame_id: pose for at, pose in poses.items()}
    kept = kept if len(shared) < MIN_POSED or found_px <= TIE * given_px else {}
    return Refined(
        kept,
        found.points,
        found.observations,
        before_px,
        found.error_px,
        float(np.degrees(np.median(turns))) if turns else 0.0,
        found.bend_px,
        given_px,
        found_px,
        {
            views[at].frame_id: (features[at].pixels[rows], scale * depth)
            for at, (rows, depth) in found.depths.items()
        },
        bridged([view.frame_id for view in views], kept),
    )


def _anchor(
    found: Solution, given: Mapping[int, Float64], picture: int
) -> tuple[Float64, float, Float64]:
    """Rotation, scale and translation where no way was given to align with: one picture stays
    where it was given, else it is the origin; its points lie at a median depth of one."""
    start, pose = given.get(picture, np.eye(4)), found.poses[picture]
    scale = 1.0 / float(np.median(found.depths[picture][1]))
    R = np.asarray(start[:3, :3] @ pose[:3, :3].T)
    return R, scale, np.asarray(start[:3, 3] - scale * R @ pose[:3, 3])


def _alignment(found: Float64, start: Float64) -> tuple[Float64, float, Float64]:
    """Rotation, scale and translation that bring poses `[N, 4, 4]` onto others: attitudes give the
    rotation, which centres on a line would leave open."""
    R = average_rotations(start[:, :3, :3] @ np.swapaxes(found[:, :3, :3], 1, 2))
    x, y = found[:, :3, 3] @ R.T, start[:, :3, 3]
    dx, dy = x - x.mean(axis=0), y - y.mean(axis=0)
    extent = float(np.sum(dx * dx))
    scale = float(np.sum(dx * dy)) / extent if extent > 0 else 1.0
    return R, scale, y.mean(axis=0) - scale * x.mean(axis=0)
