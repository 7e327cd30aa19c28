"""Checks of a run that need no truth: does it agree with the pictures and with itself?

Predicted geometry and pose against dense optical flow on covisible pixels, brightness and depth
between frames, and the way back to the start where the last picture shows the first place again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np

from flow3r_ros.evaluation.flow import evaluate_flow
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.flow import geometric_flow, pixel_grid, resize_flow, sample, warp
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.motion import rotation_angle
from flow3r_ros.types import Estimate

GAPS = (1, 5)
"""frames between the two pictures of a comparison"""
EVERY = 5
"""one frame in so many is compared"""
SAME_PLACE = 0.04
"""median flow between first and last picture, as a share of the width, below which they show the
same place"""


@dataclass
class Agreement:
    """Comparisons of pairs of estimates, gathered while a run goes on; memory does not grow with
    its length beyond one row a pair."""

    matcher: Matcher
    rows: dict[int, list[tuple[float, ...]]] = field(
        default_factory=lambda: {gap: [] for gap in GAPS}
    )
    first: Estimate | None = None
    last: Estimate | None = None
    _recent: deque[Estimate] = field(default_factory=lambda: deque(maxlen=max(GAPS) + 1))
    _count: int = 0

    def add(self, estimate: Estimate) -> None:
        """Compare the newest estimate with those before it."""
        self.first = self.first or estimate
        self.last = estimate
        self._recent.append(estimate)
        self._count += 1
        if self._count % EVERY or not estimate.tracking_state.has_pose:
            return
        for gap in GAPS:
            if len(self._recent) > gap and self._recent[-1 - gap].tracking_state.has_pose:
                row = compare_pair(self._recent[-1 - gap], estimate, self.matcher)
                if row is not None:
                    self.rows[gap].append(row)

    def summary(self) -> dict[str, Any]:
        """Medians over the pairs of each gap."""
        names = (
            "flow_epe_px",
            "flow_below_1px",
            "flow_below_3px",
            "flow_below_5px",
            "brightness",
            "brightness_unmoved",
            "depth_difference",
        )
        result: dict[str, Any] = {}
        for gap, rows in self.rows.items():
            if rows:
                medians = np.nanmedian(np.array(rows), axis=0)
                result[f"gap_{gap}"] = {
                    "pairs": len(rows),
                    **{name: float(value) for name, value in zip(names, medians, strict=True)},
                }
        return result


def compare_pair(a: Estimate, b: Estimate, matcher: Matcher) -> tuple[float, ...] | None:
    """How far depth and pose of two estimates agree with the pictures, on pixels that both see and
    that do not move by themselves.

    Returns:
        flow end-point error against dense optical flow (median, pixels of the matcher's grid),
        shares below 1, 3, 5 pixels, mean brightness difference after warping and without (0 to
        255), median relative difference of depth; None where nothing is covisible.
    """
    T_a_b = invert(a.T_odom_cam) @ b.T_odom_cam
    flow, covisible = geometric_flow(a.depth, T_a_b, a.camera, b.camera, b.depth)
    gray_a, gray_b = matcher.prepare(a.rgb), matcher.prepare(b.rgb)
    seen = matcher.flow(gray_a, gray_b)
    height, width = seen.covisibility.shape
    predicted = resize_flow(flow, width, height)
    usable = (
        cv2.resize(
            (covisible & ~a.moving).astype(np.uint8),
            (width, height),
            interpolation=cv2.INTER_NEAREST,
        )
        > 0
    )
    usable &= seen.covisible
    if usable.sum() < 0.02 * usable.size:
        return None
    score = evaluate_flow(predicted, seen.flow, usable)
    warped = np.abs(warp(gray_b, predicted).astype(np.float32) - gray_a)[usable]
    unmoved = np.abs(gray_b.astype(np.float32) - gray_a)[usable]
    shares = [score[f"below_{limit}px"] for limit in (1, 3, 5)]
    return (
        score["epe_median"],
        *shares,
        float(warped.mean()),
        float(unmoved.mean()),
        _depth_difference(a, b, flow, covisible),
    )


def _depth_difference(a: Estimate, b: Estimate, flow: Any, covisible: Any) -> float:
    """Median of |z_b - z of a's points in b| / z_b where both see the point."""
    T_b_a = invert(b.T_odom_cam) @ a.T_odom_cam
    moved = a.points().astype(np.float64) @ T_b_a[2, :3] + T_b_a[2, 3]
    there = sample(np.nan_to_num(b.depth), pixel_grid(a.camera.width, a.camera.height) + flow)
    usable = covisible & ~a.moving & (there > 0)
    return (
        float(np.median(np.abs(there - moved)[usable] / there[usable]))
        if usable.any()
        else float("nan")
    )


def loop_error(first: Estimate, last: Estimate, way: float, matcher: Matcher) -> dict[str, Any]:
    """Where the run says it ended, if the last picture shows the place of the first."""
    gray_a, gray_b = matcher.prepare(first.rgb), matcher.prepare(last.rgb)
    seen = matcher.flow(gray_a, gray_b)
    matched = seen.covisible
    flow = (
        float(np.median(np.linalg.norm(seen.flow[matched], axis=-1))) / gray_a.shape[1]
        if matched.any()
        else float("inf")
    )
    if matched.mean() < 0.5 or flow > SAME_PLACE:
        return {"same_place": False}
    relative = invert(first.T_odom_cam) @ last.T_odom_cam
    gap = float(np.linalg.norm(relative[:3, 3]))
    turn = float(np.degrees(rotation_angle(relative[:3, :3])))
    return {
        "same_place": True,
        "position_gap": gap,
        "share_of_way": gap / way if way > 0 else None,
        "rotation_gap_deg": turn,
    }
