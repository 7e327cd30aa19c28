"""Unknown intrinsics: hold the first frames back, find the focal length, then let them through;
and given ones that prove wrong.

Policy: a stream without a camera is held for at most `HELD` frames. From a network
that predicts rays of its own, the one its first point map shows is taken; otherwise the focal
length that explains the flow between them best. Where neither knows, 0.9 of the longer side
stands. The camera is then frozen and marked `estimated`; no frame is lost, the first ones are only
late.
"""

from __future__ import annotations

import logging
import math
from dataclasses import replace

from flow3r_ros.errors import Flow3rError
from flow3r_ros.geometry.calibration import estimate_focal, focal_from_points
from flow3r_ros.geometry.camera import default_camera
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.odometry.input import view_of
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Camera, Predictor, Window

log = logging.getLogger(__name__)

HELD = 12
"""frames held back at most"""
PAIRS = 5
"""pairs of held frames that are matched"""
MISFIT, SIGMAS = 0.04, 6.0
"""logarithm of the focal length over the given one beyond which the given one is called wrong, and
how many of its sigmas that must be; calibrations of real clips were found to be off by .025"""
PLAUSIBLE = (0.4, 4.0)
"""focal lengths believed, as shares of the longer side"""


def find_camera(views: list[View], predictor: Predictor, matcher: Matcher) -> Camera:
    """Pinhole of the full-size image that suits the held views best."""
    height, width = views[0].frame.rgb.shape[:2]
    focal = None
    if not predictor.uses_evidence:
        focal = _from_network(views[0], predictor)
    if focal is None and len(views) > 2:
        gap = max(len(views) // 2, 1)
        starts = range(0, len(views) - gap, max((len(views) - gap) // PAIRS, 1))
        pairs = [matcher.flow(views[i].gray, views[i + gap].gray) for i in starts]
        found = estimate_focal(pairs, width, height)
        focal = found.focal if found.observable else None
    if focal is None or not PLAUSIBLE[0] < focal / max(width, height) < PLAUSIBLE[1]:
        log.warning(
            "the focal length is unknown and not observable in the first frames: 0.9 "
            "of the longer side is assumed"
        )
        return default_camera(width, height)
    log.info("focal length estimated: %.1f pixels of %dx%d", focal, width, height)
    return default_camera(width, height, focal)


def with_camera(view: View, camera: Camera, depth_width: int) -> View:
    """The view seen through another pinhole of the full-size image."""
    return view_of(replace(view.frame, camera=camera), depth_width)


def _from_network(view: View, predictor: Predictor) -> float | None:
    """Focal length of the first frame's predicted point map, in pixels of the full image; None when
    it shows none."""
    try:
        prediction = predictor.predict(Window((view.frame,), (view.id,)))
        fx, fy = focal_from_points(prediction.local_points[0], prediction.confidence[0])
    except Flow3rError as error:
        log.warning("no focal length from the network: %s", error)
        return None
    rows, columns = prediction.confidence.shape[1:]
    height, width = view.frame.rgb.shape[:2]
    return float(0.5 * (fx * width / columns + fy * height / rows))


def misfit(focal: float, sigma: float) -> str:
    """What to say of given intrinsics whose focal length proved to be `focal` times as long, with
    the 1-sigma of its logarithm; empty where they fit."""
    off = math.log(focal)
    if abs(off) < max(MISFIT, SIGMAS * sigma):
        return ""
    share, which = abs(focal - 1.0), "longer" if off > 0 else "shorter"
    return f"the given intrinsics do not fit: the focal length is {share:.0%} {which}"
