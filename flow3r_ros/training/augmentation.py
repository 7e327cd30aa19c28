"""Geometric changes to a clip that keep flow, depth, poses and intrinsics telling the same story;
then the step to the network's grid."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.geometry.camera import cropped, scaled
from flow3r_ros.geometry.flow import inside, pixel_grid
from flow3r_ros.training.labels.clips import Clip, FlowLabel
from flow3r_ros.training.sample import Sample
from flow3r_ros.types import Camera, Evidence, UInt8

Pair = tuple[int, int]
EvidenceMaker = Callable[[UInt8, Camera, tuple[int, int]], Evidence]
"""(full-size rgb `[N, H, W, 3]`, its camera, grid (w, h)) -> evidence"""


@dataclass(frozen=True)
class Example:
    """A clip at full size with labelled pairs: `pairs[k]` (positions in the clip) belongs to
    `labels[k]`."""

    clip: Clip
    pairs: tuple[Pair, ...]
    labels: tuple[FlowLabel, ...]


@dataclass(frozen=True)
class Window:
    """Part of an image in whole pixels: left, top, width, height."""

    left: int
    top: int
    width: int
    height: int


def mirror(example: Example) -> Example:
    """The scene seen in a mirror: columns reversed, x of flow and of poses negated."""
    clip = example.clip
    side = np.diag([-1.0, 1.0, 1.0, 1.0])
    camera = replace(clip.camera, cx=clip.camera.width - 1 - clip.camera.cx)
    depth = None if clip.depth is None else np.ascontiguousarray(clip.depth[:, :, ::-1])
    poses = None if clip.poses is None else side @ clip.poses @ side
    labels = tuple(
        FlowLabel(
            np.ascontiguousarray(label.displacement[:, ::-1]) * np.array([-1, 1], np.float32),
            np.ascontiguousarray(label.covisibility[:, ::-1]),
            np.ascontiguousarray(label.confidence[:, ::-1]),
        )
        for label in example.labels
    )
    rgb = np.ascontiguousarray(clip.rgb[:, :, ::-1])
    return Example(
        replace(clip, rgb=rgb, camera=camera, depth=depth, poses=poses), example.pairs, labels
    )


def reverse(example: Example) -> Example:
    """The clip played backward; labels stay with their frames."""
    clip, last = example.clip, len(example.clip) - 1
    turned = replace(
        clip,
        rgb=np.ascontiguousarray(clip.rgb[::-1]),
        stamps_ns=clip.stamps_ns[::-1].copy(),
        depth=None if clip.depth is None else np.ascontiguousarray(clip.depth[::-1]),
        poses=None if clip.poses is None else np.ascontiguousarray(clip.poses[::-1]),
    )
    return Example(turned, tuple((last - i, last - j) for i, j in example.pairs), example.labels)


def fitting_window(
    width: int, height: int, grid: tuple[int, int], zoom: float, across: float, down: float
) -> Window:
    """The part of a `width` x `height` image with the aspect ratio of `grid`, as large as `1 /
    zoom` allows; `across`, `down` place it."""
    scale = min(width / grid[0], height / grid[1]) / max(zoom, 1.0)
    w, h = max(1, min(width, round(grid[0] * scale))), max(1, min(height, round(grid[1] * scale)))
    return Window(round((width - w) * across), round((height - h) * down), w, h)


def to_sample(
    example: Example, window: Window, grid: tuple[int, int], evidence: EvidenceMaker | None = None
) -> Sample:
    """Crop to `window`, resize to the network's `grid` (w, h); every label follows. Targets outside
    the window are not covisible."""
    clip, (w, h) = example.clip, grid
    part = clip.rgb[
        :, window.top : window.top + window.height, window.left : window.left + window.width
    ]
    camera = cropped(clip.camera, window.left, window.top, window.width, window.height)
    rgb = np.stack(
        [cv2.resize(image, (w, h), interpolation=cv2.INTER_AREA) for image in part]
    ).astype(np.uint8)
    flows = [_flow_on_grid(label, clip.camera, window, grid) for label in example.labels]
    depth = None
    if clip.depth is not None:
        columns, rows = (np.rint(axis).astype(int) for axis in _image_axes(window, grid))
        depth = clip.depth[
            :,
            np.clip(rows, 0, clip.camera.height - 1)[:, None],
            np.clip(columns, 0, clip.camera.width - 1)[None, :],
        ]
    return Sample(
        rgb=rgb,
        camera=scaled(camera, w, h),
        pairs=np.array(example.pairs, np.int64).reshape(-1, 2),
        flow=np.stack([flow for flow, _ in flows]) if flows else np.zeros((0, h, w, 2), np.float32),
        covisibility=np.stack([seen for _, seen in flows])
        if flows
        else np.zeros((0, h, w), np.float32),
        depth=depth,
        poses=clip.poses,
        evidence=None if evidence is None else evidence(np.ascontiguousarray(part), camera, grid),
        name=clip.source,
    )


def _image_axes(window: Window, grid: tuple[int, int]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Columns and rows of the full image under the grid's pixel centres."""
    columns = (np.arange(grid[0]) + 0.5) * window.width / grid[0] - 0.5 + window.left
    rows = (np.arange(grid[1]) + 0.5) * window.height / grid[1] - 0.5 + window.top
    return columns, rows


def _flow_on_grid(
    label: FlowLabel, camera: Camera, window: Window, grid: tuple[int, int]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Displacement in grid pixels `[h, w, 2]` and weight `[h, w]`: covisible, sure, and the target
    inside the window."""
    lh, lw = label.covisibility.shape
    columns, rows = _image_axes(window, grid)
    u = ((columns + 0.5) * lw / camera.width - 0.5).astype(np.float32)
    v = ((rows + 0.5) * lh / camera.height - 0.5).astype(np.float32)
    at = np.stack(np.broadcast_arrays(u[None, :], v[:, None]), axis=-1).astype(np.float32)
    weight = label.covisibility * np.sqrt(label.confidence)
    planes = np.dstack([label.displacement, weight]).astype(np.float32)
    sampled = cv2.remap(planes, at, np.empty(0), cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    factor = np.array(
        [camera.width / lw * grid[0] / window.width, camera.height / lh * grid[1] / window.height],
        np.float32,
    )
    flow = np.asarray(sampled[..., :2] * factor, np.float32)
    here = inside(pixel_grid(*grid) + flow, *grid)
    return flow, np.asarray(sampled[..., 2] * here, np.float32)
