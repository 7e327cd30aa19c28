"""Depth of a new frame: what keyframes hand on, what parallax shows, and the network for the rest.

Keyframe depth carries the scale from frame to frame; triangulation sharpens it; the network's depth
is brought onto both (scale and shift in inverse depth) and fills what they do not know. Pixels that
move on their own belong to the network alone.
"""

from __future__ import annotations

import numpy as np

from flow3r_ros.geometry.correspondence import Correspondence
from flow3r_ros.geometry.depth_map import DepthMap, unknown
from flow3r_ros.geometry.lie import invert
from flow3r_ros.geometry.two_view import moving_mask
from flow3r_ros.odometry.align import robust_depth_scale
from flow3r_ros.odometry.assist import Track
from flow3r_ros.odometry.depth import (
    fit_to,
    from_network,
    fuse,
    gather,
    triangulated,
)
from flow3r_ros.odometry.views import View
from flow3r_ros.types import Float32, Prediction, Seam


def propagate_depth(view: View, track: Track, links: int) -> DepthMap:
    """Depth that geometry knows of a view at its present pose; sets its moving mask and base.

    Triangulates against the latest `links` keyframes, unless the camera stands still.
    """
    handed_on = _handed_on(view, track)
    view.base = handed_on
    if track.still is not None:
        return handed_on
    used = track.links[:links]
    flows = {link.reference.id: link.correspondence.reversed() for link in used}
    return fuse([handed_on, _seen(view, flows, [link.reference for link in used])])


def complete_depth(
    view: View,
    known: DepthMap | None,
    prediction: Prediction | None,
    seam: Seam | None,
    median_depth: float | None,
) -> None:
    """Set inverse depth, sigma and base of a view whose pose is settled: what is `known`, and the
    network for the rest.

    `median_depth` is what the scene had so far (odometry units), used to keep the scale where a
    refused seam says nothing.
    """
    height, width = view.gray.shape
    if prediction is None:
        _take(view, known if known is not None else unknown(height, width))
        return
    index = prediction.frame_ids.index(view.id)
    z, confidence = prediction.local_points[index, :, :, 2], prediction.confidence[index]
    scale = _scale(z, seam, median_depth)
    network = from_network(z, confidence, scale, width, height)
    if known is None or view.base is None:
        view.base = network
        if seam is None or seam.accepted:
            view.predicted_depth = (z * scale).astype(np.float32)
        _take(view, network)
        return
    fitted = fit_to(network, known)
    view.base = fuse([fitted, view.base])
    _take(view, fuse([fitted, known]))


def refresh_depth(view: View, links: dict[int, Correspondence], keyframes: list[View]) -> None:
    """Triangulate a keyframe anew after poses were adjusted; its base follows by one robust
    scale."""
    if view.base is None or not links:
        return
    seen = _seen(view, links, keyframes)
    ratio = robust_depth_scale(
        view.base.depth()[::3, ::3].ravel(),
        seen.depth()[::3, ::3].ravel(),
        np.ones(seen.inverse[::3, ::3].size, dtype=np.float32),
    )
    scale = np.float32(1.0 if ratio is None else 1.0 / ratio)
    _take(view, fuse([DepthMap(view.base.inverse * scale, view.base.sigma * scale), seen]))


def _take(view: View, map_: DepthMap) -> None:
    view.inverse_depth, view.sigma = map_.inverse, map_.sigma


def _seen(view: View, links: dict[int, Correspondence], references: list[View]) -> DepthMap:
    """Depth triangulated against every linked keyframe, moving pixels excepted."""
    maps = [
        triangulated(links[reference.id], view.camera, invert(view.pose) @ reference.pose)
        for reference in references
        if reference.id in links
    ]
    if not maps:
        return unknown(*view.gray.shape)
    return _rigid_part(fuse(maps), view)


def _handed_on(view: View, track: Track) -> DepthMap:
    """Depth that the last keyframe hands on along the flow; finds the moving pixels on the way."""
    if not track.links:
        return unknown(*view.gray.shape)
    reference, back = track.links[0].reference, track.links[0].correspondence.reversed()
    T_view_reference = invert(view.pose) @ reference.pose
    source = DepthMap(
        reference.inverse_depth, np.where(reference.moving, np.float32(np.inf), reference.sigma)
    )
    handed_on = gather(source, back.flow, back.covisibility, T_view_reference, view.camera)
    view.moving = moving_mask(back, view.camera, T_view_reference, handed_on.depth())
    return _rigid_part(handed_on, view)


def _rigid_part(map_: DepthMap, view: View) -> DepthMap:
    if not view.moving.any():
        return map_
    return map_.where(~view.moving)


def _scale(z: Float32, seam: Seam | None, median_depth: float | None) -> float:
    """Odometry units per network unit: the seam's, else whatever keeps the median depth, 1 for the
    first frame of all."""
    if seam is not None and (seam.accepted or (seam.inliers > 0 and np.isfinite(seam.scale))):
        return seam.scale
    valid = np.isfinite(z) & (z > 0)
    if median_depth is None or not valid.any():
        return 1.0
    return float(median_depth / np.median(z[valid]))
