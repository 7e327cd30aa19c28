"""Clips on disk: self-checking shards of JPEG frames with stamps and camera."""

from __future__ import annotations

import re
from dataclasses import asdict
from typing import Any

import cv2
import numpy as np
from pydantic import Field

from flow3r_ros.config import Settings
from flow3r_ros.errors import TrainingError
from flow3r_ros.storage import Location
from flow3r_ros.training.labels.clips import Clip
from flow3r_ros.training.shards import ShardError, read_bytes, unpack_shard, write_shard
from flow3r_ros.types import Camera


class ClipSettings(Settings):
    """How recordings become clips."""

    width: int = Field(
        336,
        ge=64,
        le=1920,
        description="width in pixels that frames are stored at (height follows the aspect ratio)",
    )
    frames: int = Field(12, ge=2, le=64, description="most frames per clip")
    min_motion: float = Field(
        0.01,
        gt=0,
        le=0.5,
        description="median motion since the last chosen frame, as a share of the width, that "
        "chooses a frame",
    )
    min_overlap: float = Field(
        0.3,
        ge=0,
        le=1,
        description="covisible share with the last chosen frame below which a clip ends (a cut or "
        "a jump)",
    )
    quality: int = Field(92, ge=50, le=100, description="JPEG quality of stored frames")


def clip_path(folder: Location, key: str) -> Location:
    """Where the clip with this key lies. Raises ShardError for a key that is a path: a cache may
    come from elsewhere."""
    if re.fullmatch(r"[A-Za-z0-9_-]{1,128}", key) is None:
        raise ShardError(
            f"{folder}: {key[:80]!r} is no key of a clip", "this cache is damaged: label again"
        )
    return folder / "clips" / key[:2] / f"{key}.shard"


def write_clip(path: Location, clip: Clip, quality: int = 92) -> None:
    """Store an unlabelled clip: JPEG frames, stamps, camera. Raises OutputError."""
    encoded = []
    for image in clip.rgb:
        done, data = cv2.imencode(
            ".jpg", cv2.cvtColor(image, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
        )
        if not done:
            raise TrainingError(f"{clip.source}: a frame cannot be encoded as JPEG")
        encoded.append(np.asarray(data, np.uint8).ravel())
    ends = np.cumsum([len(data) for data in encoded]).astype(np.int64)
    arrays: dict[str, Any] = {
        "jpeg": np.concatenate(encoded),
        "ends": ends,
        "stamps_ns": clip.stamps_ns,
    }
    write_shard(
        path, arrays, {"key": clip.key, "source": clip.source, "camera": asdict(clip.camera)}
    )


def read_clip(path: Location, frames: list[int] | None = None) -> Clip:
    """Read a clip, or only some of its frames (positions). Raises ShardError when the shard is
    missing or damaged."""
    return decode_clip(read_bytes(path), str(path), frames)


def decode_clip(data: bytes, where: str, frames: list[int] | None = None) -> Clip:
    """Inverse of `write_clip` from the shard's bytes; `where` names it in errors. Raises ShardError
    when damaged."""
    arrays, metadata = unpack_shard(data, where)
    ends = arrays["ends"]
    wanted = list(range(len(ends))) if frames is None else frames
    images = []
    for position in wanted:
        jpeg = arrays["jpeg"][(ends[position - 1] if position else 0) : ends[position]]
        image = cv2.imdecode(jpeg, cv2.IMREAD_COLOR)
        if image is None:
            raise ShardError(
                f"{where}: frame {position} is no JPEG", "run flow3r label again, it is made anew"
            )
        images.append(cv2.cvtColor(image, cv2.COLOR_BGR2RGB))
    camera = Camera(**{**metadata["camera"], "distortion": tuple(metadata["camera"]["distortion"])})
    return Clip(
        metadata["key"],
        metadata["source"],
        np.stack(images).astype(np.uint8),
        arrays["stamps_ns"][wanted],
        camera,
    )
