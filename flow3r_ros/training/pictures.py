"""Pictures of what the network says about one held-out clip: flow beside the teacher's, depth, and
the cameras' way from above."""

from __future__ import annotations

import cv2
import numpy as np
from torch import Tensor

from flow3r_ros.training.sample import Batch
from flow3r_ros.types import Float32, UInt8

_PAIRS = 3
_SIDE = 320


def draw(outputs: dict[str, Tensor], batch: Batch) -> dict[str, UInt8]:
    """Pictures rgb uint8 by name of the first clip of a batch on the CPU: `flow`, `depth`,
    `trajectory`.

    `flow`: a row per pair: source, target, teacher's flow, predicted flow, both in one scale, black
    where the teacher sees nothing;
    `depth`: a row per frame: image, predicted depth, true depth where labelled; `trajectory`: x to
    the right, z up, predicted cameras orange, true ones (else prior ones) blue.
    """
    rgb = (batch.images[0].permute(0, 2, 3, 1).numpy() * 255).astype(np.uint8)
    pictures = {"depth": _depth(rgb, outputs, batch), "trajectory": _trajectory(outputs, batch)}
    if len(batch.pairs[0]):
        pictures["flow"] = _flow(rgb, outputs, batch)
    return pictures


def _flow(rgb: UInt8, outputs: dict[str, Tensor], batch: Batch) -> UInt8:
    height, width = rgb.shape[1:3]
    half = np.array([-(width - 1) / 2, -(height - 1) / 2], np.float32)
    still = np.stack(
        np.meshgrid(np.linspace(1, -1, width), np.linspace(1, -1, height)), axis=-1
    ).astype(np.float32)
    rows = []
    for index, (source, target) in enumerate(batch.pairs[0, :_PAIRS].tolist()):
        seen = batch.covisibility[0, index].numpy() > 0.5
        theirs, ours = (
            (flow[0, index].numpy() - still) * half for flow in (batch.flow, outputs["flow"])
        )
        scale = max(
            float(np.percentile(np.linalg.norm(theirs[seen], axis=-1), 95)) if seen.any() else 1.0,
            1e-3,
        )
        rows.append(
            np.hstack(
                [
                    rgb[source],
                    rgb[target],
                    _colours(theirs, scale) * seen[..., None],
                    _colours(ours, scale),
                ]
            )
        )
    return np.vstack(rows)


def _colours(flow: Float32, scale: float) -> UInt8:
    """Direction as hue, length over `scale` pixels as saturation."""
    angle = np.rad2deg(np.arctan2(flow[..., 1], flow[..., 0])) % 360
    strength = np.clip(np.linalg.norm(flow, axis=-1) / scale, 0, 1)
    hsv = np.stack([angle / 2, 255 * strength, np.full_like(angle, 255)], axis=-1).astype(np.uint8)
    return np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB), np.uint8)


def _depth(rgb: UInt8, outputs: dict[str, Tensor], batch: Batch) -> UInt8:
    columns = [rgb, _shades(outputs["local_points"][0, ..., 2].numpy())]
    if 0 in batch.labelled.tolist():
        columns.append(
            _shades(
                np.where(
                    batch.truth.valid[0].numpy(), batch.truth.points[0, ..., 2].numpy(), np.nan
                )
            )
        )
    return np.vstack([np.hstack(frames) for frames in zip(*columns, strict=True)])


def _shades(depth: Float32) -> UInt8:
    """Inverse depth `[N, H, W]` in one scale over all frames, black where unknown."""
    known = np.isfinite(depth) & (depth > 1e-6)
    inverse = np.where(known, 1 / np.where(known, depth, 1), 0)
    near, far = (
        (float(np.percentile(inverse[known], share)) for share in (98, 2))
        if known.any()
        else (1.0, 0.0)
    )
    gray = np.clip(255 * (inverse - far) / max(near - far, 1e-9), 0, 255).astype(np.uint8)
    shaded = np.stack(
        [
            cv2.cvtColor(cv2.applyColorMap(frame, cv2.COLORMAP_TURBO), cv2.COLOR_BGR2RGB)
            for frame in gray
        ]
    )
    return np.asarray(shaded * known[..., None], np.uint8)


def _trajectory(outputs: dict[str, Tensor], batch: Batch) -> UInt8:
    labelled = 0 in batch.labelled.tolist()
    reference = (batch.truth.poses if labelled else batch.evidence.poses)[0].numpy()
    paths = [_way(poses) for poses in (reference, outputs["camera_poses"][0].numpy())]
    canvas = np.full((_SIDE, _SIDE, 3), 255, np.uint8)
    for path, colour in zip(paths, ((40, 90, 200), (230, 120, 20)), strict=True):
        pixels = np.round(_SIDE * (0.5 + 0.4 * path * (1, -1))).astype(np.int32)
        cv2.polylines(canvas, [pixels.reshape(-1, 1, 2)], False, colour, 2, cv2.LINE_AA)
        for pixel in pixels:
            cv2.circle(canvas, (int(pixel[0]), int(pixel[1])), 4, colour, -1, cv2.LINE_AA)
    return canvas


def _way(poses: Float32) -> Float32:
    """Camera centres (x, z) `[N, 2]` from the first camera, farthest at 1 (the scale of a clip is
    free)."""
    centres = (np.linalg.inv(poses[:1]) @ poses)[:, [0, 2], 3]
    return np.asarray(centres / max(float(np.abs(centres).max()), 1e-6), np.float32)
