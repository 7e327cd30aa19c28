"""What a record keeps of one estimate: a row of numbers, and now and then a thumbnail."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.types import Bool, Estimate, Float32, PoseSource, TrackingState, UInt8

STATES = tuple(TrackingState)
SOURCES = tuple(PoseSource)
COLUMNS = (
    "stamp_s",
    "state",
    "source",
    "keyframe",
    "scale_sigma",
    "position_sigma",
    "rotation_sigma",
    "confidence",
    "moving",
    "depth_median",
    "depth_valid",
    "seam_scale",
    "seam_residual",
    "seam_inliers",
    "seam_accepted",
    "segment",
)
THUMBNAIL_WIDTH = 256


@dataclass(frozen=True)
class Thumbnail:
    """One sampled frame, small: `rgb` uint8 `[h, w, 3]`, `depth` float32 `[h, w]` (NaN invalid),
    `confidence`, `moving` bool."""

    index: int
    stamp_ns: int
    rgb: UInt8
    depth: Float32
    confidence: Float32
    moving: Bool


def row_of(estimate: Estimate, seconds: float) -> tuple[float, ...]:
    """The numbers of one estimate in the order of COLUMNS; `seconds` since the first frame."""
    valid = np.isfinite(estimate.depth)
    seam = estimate.seam
    variances = np.clip(np.diag(estimate.covariance), 0.0, None)
    return (
        seconds,
        STATES.index(estimate.tracking_state),
        SOURCES.index(estimate.pose_source),
        float(estimate.keyframe),
        estimate.scale_sigma,
        float(np.sqrt(variances[:3].sum())),
        float(np.degrees(np.sqrt(variances[3:].sum()))),
        float(estimate.confidence.mean()),
        float(estimate.moving.mean()),
        float(np.median(estimate.depth[valid])) if valid.any() else float("nan"),
        float(valid.mean()),
        seam.scale if seam else float("nan"),
        seam.residual if seam else float("nan"),
        seam.inliers if seam else float("nan"),
        float(seam.accepted) if seam else float("nan"),
        float(estimate.segment),
    )


def thumbnail_of(estimate: Estimate, index: int) -> Thumbnail:
    """One estimate, at most THUMBNAIL_WIDTH pixels wide."""
    height, width = estimate.depth.shape
    size = (
        min(THUMBNAIL_WIDTH, width),
        max(1, round(min(THUMBNAIL_WIDTH, width) * height / width)),
    )
    rgb = np.asarray(cv2.resize(estimate.rgb, size, interpolation=cv2.INTER_AREA), np.uint8)
    depth = np.asarray(
        cv2.resize(estimate.depth, size, interpolation=cv2.INTER_NEAREST), np.float32
    )
    confidence = np.asarray(
        cv2.resize(estimate.confidence, size, interpolation=cv2.INTER_NEAREST), np.float32
    )
    moving = cv2.resize(
        estimate.moving.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST
    ).astype(bool)
    return Thumbnail(index, estimate.stamp_ns, rgb, depth, confidence, moving)
