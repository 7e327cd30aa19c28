"""The back end: what a new keyframe is built into, in a thread of its own.

Its points are found again in older keyframes and the poses adjusted; dense flow to the keyframes
before it is triangulated; the network, told that, gives the geometry of the rest; all of it becomes
one depth map. The front end goes on meanwhile and takes the result in at a join that frames alone
decide.

`Backend` owns the keyframe map. Between `submit` and `take` only its thread touches it.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import pairwise
from time import perf_counter

import numpy as np

from flow3r_ros.config import Config
from flow3r_ros.geometry.camera_pose import DepthPoints
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.depth_map import DepthMap, unknown
from flow3r_ros.odometry.corners import Reference
from flow3r_ros.odometry.depth import from_network
from flow3r_ros.odometry.inference import Answer, ask_network
from flow3r_ros.odometry.keyframe_depth import Links, complete, match, measure
from flow3r_ros.odometry.keyframes import Ids, Keyframe, KeyframeMap, Points
from flow3r_ros.odometry.mapping import adjust_map, find_again
from flow3r_ros.odometry.relocalisation import Features, describe
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Bool, Float32, Float64, Predictor, Seam

log = logging.getLogger(__name__)

BUILD_TIMEOUT_S = 60.0
"""a keyframe that takes longer is given up: the back end hangs"""
FIRST_SIGMA, NEW_SIGMA = 0.7, 0.4
"""relative sigma at least of the inverse depth that a point starts with: of one picture, and of a
later keyframe's depth map; neighbouring points share their error, and corners sit on edges"""
UNKNOWN_SIGMA = 1.0
"""relative sigma of a point whose depth nobody knows; it starts at the median"""


@dataclass(frozen=True)
class Order:
    """A keyframe to build: its `view` and `pose` `[4, 4]` as the front end found it; `ids` and
    `pixels` of the corners followed into it; `new_ids`, `new_pixels` of new ones, with `inverse`
    and `sigma` `[M]` as far as known (NaN, inf);
    `sigma_px` of a corner's position."""

    view: View
    pose: Float64
    ids: Ids
    pixels: Float32
    new_ids: Ids
    new_pixels: Float32
    inverse: Float64
    sigma: Float64
    sigma_px: float


@dataclass(frozen=True)
class Built:
    """A built keyframe: the `reference` the front end goes on with; its `features`; the poses of
    the keyframes that were `adjusted` with it, by id; `focal` how long the lens is over the given
    one, the 1-sigma of its logarithm, and its `bend` beyond what was given; `seam` and `window` of
    the network's answer, and whether it `answered`; the milliseconds of each stage."""

    reference: Reference
    features: Features
    adjusted: dict[int, Float64]
    focal: float
    focal_sigma: float
    bend: float
    seam: Seam | None
    window: tuple[int, ...]
    answered: bool
    stage_ms: dict[str, float]


class Backend:
    """Builds keyframes one after the other; a context manager that ends its thread."""

    def __init__(self, predictor: Predictor, config: Config) -> None:
        self._predictor = predictor
        self._config = config
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="back end")
        self._matcher = Matcher(config.tracking.depth_width, sparse_fallback=False)
        self._map = KeyframeMap(config.engine.keyframes)
        self._links: Links = {}
        self._future: Future[Built] | None = None

    def __enter__(self) -> Backend:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Finish what is being built and end the thread."""
        self._thread.shutdown(wait=True)

    def reset(self) -> None:
        """Forget every keyframe; waits for the one being built."""
        self.take()
        self._map.clear()
        self._links.clear()

    @property
    def busy(self) -> bool:
        """Whether a keyframe was submitted and not yet taken."""
        return self._future is not None

    def submit(self, order: Order) -> None:
        """Start building a keyframe; the one before must have been taken."""
        assert self._future is None
        self._future = self._thread.submit(self._build, order)

    def take(self) -> Built | None:
        """The keyframe that was submitted, once it is built; None when there is none."""
        future, self._future = self._future, None
        if future is None:
            return None
        try:
            return future.result(BUILD_TIMEOUT_S)
        except Exception as error:
            what = "does not answer" if isinstance(error, TimeoutError) else f"failed: {error!r}"
            log.error("the back end %s; it starts anew without its keyframes", what)
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="back end")
            self._map = KeyframeMap(self._config.engine.keyframes)
            self._links = {}
            return None

    def snapshot(self) -> tuple[KeyframeMap, Links, Built | None]:
        """Keyframes, dense links, and the keyframe that waits to be taken, once it is built; raises
        what building it raised, TimeoutError when it is not built in time."""
        built = None if self._future is None else self._future.result(BUILD_TIMEOUT_S)
        return self._map, self._links, built

    def restore(self, snapshot: tuple[KeyframeMap, Links, Built | None]) -> None:
        """Go on from what `snapshot` gave."""
        self._map, self._links, built = snapshot
        self._future = None if built is None else Future()
        if self._future is not None and built is not None:
            self._future.set_result(built)

    def look(self, view: View, pose: Float64) -> tuple[DepthMap, Bool]:
        """Depth and moving pixels of a frame at `pose` `[4, 4]`, as the network sees it beside the
        keyframes; waits for it, and for a keyframe being built."""
        return self._thread.submit(self._look, view, pose).result()

    def _look(self, view: View, pose: Float64) -> tuple[DepthMap, Bool]:
        height, width = view.gray.shape
        none = np.empty(0, np.int64)
        frame = Keyframe(
            view, pose, none, np.empty((0, 2), np.float32), unknown(height, width),
            unknown(height, width), np.zeros((height, width), np.bool_),
        )  # fmt: skip
        links = match(self._matcher, frame, self._map.keyframes)
        measure(frame, links, self._map)
        answer = self._ask(frame, self._links | links, self._map.keyframes)
        complete(frame, self._network_depth(frame, answer))
        return frame.depth, frame.moving

    def _build(self, order: Order) -> Built:
        clock = _Clock()
        keyframe = self._insert(order)
        adjusted: dict[int, Float64] = {}
        with_older = len(self._map) > 1
        if with_older:
            find_again(self._map, keyframe)
            clock.lap("find again")
            outcome = adjust_map(self._map, order.sigma_px)
            if outcome is not None:
                adjusted = {id_: self._map.find(id_).pose.copy() for id_ in outcome[1]}
            clock.lap("bundle")
        others = self._map.keyframes[:-1]
        self._links |= match(self._matcher, keyframe, others)
        measure(keyframe, self._links, self._map)
        clock.lap("flow")
        answer = self._ask(keyframe, self._links, others)
        clock.lap("network")
        complete(keyframe, self._network_depth(keyframe, answer))
        self._settle_new_points(keyframe)
        clock.lap("depth")
        self._release()
        seam = None if answer is None else answer.seam
        window = () if answer is None else answer.window
        features = describe(keyframe.view)
        clock.lap("features")
        return Built(
            self._reference(keyframe),
            features,
            adjusted,
            self._map.focal,
            self._map.focal_sigma,
            self._map.bend,
            seam,
            window,
            answer is not None,
            clock.stages,
        )

    def _insert(self, order: Order) -> Keyframe:
        """The keyframe and its points into the map."""
        known = np.isin(order.ids, self._map.points.ids)
        ids, pixels = order.ids[known], order.pixels[known]
        forgotten = ~known & (len(self._map) == 0)  # of a map that was lost: found anew
        nothing = np.full(np.count_nonzero(forgotten), np.nan)
        new_ids = np.concatenate([order.ids[forgotten], order.new_ids])
        new_pixels = np.concatenate([order.pixels[forgotten], order.new_pixels])
        guess = np.concatenate([nothing, order.inverse])
        guess_sigma = np.concatenate([nothing, order.sigma])
        if not len(self._map):  # a map that was lost: what the lens proved to be is not
            self._map.refocus(order.view.focal, 0.0, order.view.bend)
        view = order.view.with_lens(self._map.focal, self._map.bend)
        typical = float(np.nanmedian(guess)) if np.isfinite(guess).any() else 1.0
        measured = np.isfinite(guess) & (guess > 0) & np.isfinite(guess_sigma)
        inverse = np.where(measured, guess, typical)
        sigma = np.where(measured, starting_sigma(inverse, guess_sigma), UNKNOWN_SIGMA * typical)
        rays = view.rays(new_pixels)
        hosts = np.full(len(new_ids), view.id)
        new = Points(new_ids, hosts, rays, inverse, sigma, inverse.copy(), sigma.copy())
        all_ids, all_pixels = np.concatenate([ids, new_ids]), np.concatenate([pixels, new_pixels])
        sort = np.argsort(all_ids)
        height, width = view.gray.shape
        keyframe = Keyframe(
            view, order.pose, all_ids[sort], all_pixels[sort], unknown(height, width),
            unknown(height, width), np.zeros((height, width), np.bool_),
        )  # fmt: skip
        self._map.add(keyframe, new)
        return keyframe

    def _ask(self, keyframe: Keyframe, links: Links, others: Sequence[Keyframe]) -> Answer | None:
        same = [
            each for each in others
            if each.view.frame.rgb.shape == keyframe.view.frame.rgb.shape
        ]  # fmt: skip
        companions = same[-(self._config.engine.window - 1) :]
        views = [*companions, keyframe]
        steps = [links.get((a.id, b.id)) for a, b in pairwise(views)]
        return ask_network(self._predictor, companions, keyframe, steps, self._config.engine)

    def _network_depth(self, keyframe: Keyframe, answer: Answer | None) -> DepthMap | None:
        """What the network says of a keyframe, where its window fits the odometry."""
        if answer is None or not (answer.seam is None or answer.seam.accepted):
            return None
        height, width = keyframe.view.gray.shape
        return from_network(answer.depth, answer.confidence, 1.0, width, height)

    def _settle_new_points(self, keyframe: Keyframe) -> None:
        """Points that only this keyframe sees take its depth, now that it is known better."""
        points = self._map.points
        rows = np.flatnonzero(points.hosts == keyframe.id)
        elsewhere = np.concatenate(
            [each.ids for each in self._map.keyframes if each is not keyframe]
            or [np.empty(0, np.int64)]
        )
        rows = rows[~np.isin(points.ids[rows], elsewhere)]
        pixels = keyframe.pixels[np.searchsorted(keyframe.ids, points.ids[rows])]
        inverse, sigma = keyframe.depth.at(pixels, keyframe.view.ratio)
        good = np.isfinite(inverse) & (inverse > 0) & np.isfinite(sigma)
        least = FIRST_SIGMA if len(self._map) == 1 else NEW_SIGMA
        start = starting_sigma(inverse[good], sigma[good], least)
        self._map.reset_prior(rows[good], inverse[good], start)

    def _release(self) -> None:
        """Old keyframes are neither matched nor go through the network any more: their images and
        matches, and what only those need, are let go."""
        window = self._config.engine.window
        oldest = self._map.keyframes[-window:][0].id
        self._links = {pair: link for pair, link in self._links.items() if pair[0] >= oldest}
        for keyframe in self._map.keyframes[:-window]:
            if keyframe.view.frame.rgb.size:
                empty = np.empty((0, 0, 3), np.uint8)
                frame = replace(keyframe.view.frame, rgb=empty, ignored=None)
                keyframe.view = replace(keyframe.view, frame=frame)
                keyframe.measured = unknown(0, 0)

    def _reference(self, keyframe: Keyframe) -> Reference:
        points = self._map.seen_from(keyframe.ids, keyframe.pose)
        good = points.inverse > 0
        return Reference(
            keyframe.view,
            keyframe.pose.copy(),
            keyframe.depth,
            keyframe.moving,
            keyframe.ids[good],
            keyframe.pixels[good],
            DepthPoints(points.rays[good], points.inverse[good], points.sigma[good]),
        )


def starting_sigma(inverse: Float64, sigma: Float64, least: float = NEW_SIGMA) -> Float64:
    """1-sigma `[N]` of inverse depths that no parallax has shown yet, whatever the map they come
    from says: near points are told too far as easily as the other way round."""
    typical = float(np.median(inverse)) if len(inverse) else 0.0
    return np.maximum(sigma, least * np.maximum(inverse, typical))


class _Clock:
    """Milliseconds from lap to lap."""

    def __init__(self) -> None:
        self.stages: dict[str, float] = {}
        self._last = perf_counter()

    def lap(self, name: str) -> None:
        now = perf_counter()
        self.stages[name] = 1e3 * (now - self._last)
        self._last = now
