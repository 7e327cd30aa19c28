"""A map as plain arrays and back, each checked: what `keyframes.safetensors` holds."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from flow3r_ros.slam.keyframe import MapKeyframe
from flow3r_ros.slam.loops import Loop
from flow3r_ros.slam.saved import SavedMap
from flow3r_ros.types import Camera, Float64

_CAMERA = ("width", "height", "fx", "fy", "cx", "cy")


def arrays_of(saved: SavedMap) -> dict[str, NDArray[Any]]:
    """Everything of a map but its pictures."""
    frames = saved.keyframes
    arrays: dict[str, NDArray[Any]] = {
        "keys": np.array([each.key for each in frames], np.int64),
        "frame_ids": np.array([each.frame_id for each in frames], np.int64),
        "stamps_ns": np.array([each.stamp_ns for each in frames], np.int64),
        "segments": np.array([each.segment for each in frames], np.int64),
        "steps": np.array([saved.steps[each.key] for each in frames], np.int64),
        "poses": np.stack([saved.poses[each.key] for each in frames]),
        "odom_poses": np.stack([each.T_odom_cam for each in frames]),
        "cameras": np.array([_numbers(each.camera) for each in frames]),
        "lenses": np.array([_numbers(each.lens) for each in frames]),
        "islands": np.array(list(saved.islands.items()), np.int64).reshape(-1, 2),
        "loop_keys": np.array([(x.first, x.second) for x in saved.loops], np.int64).reshape(-1, 2),
        "loop_poses": np.array([x.S_first_second for x in saved.loops]).reshape(-1, 4, 4),
        "loop_evidence": np.array(
            [(x.matches, x.inliers, x.likeness, x.disagreement) for x in saved.loops]
        ).reshape(-1, 4),
    }
    for row, each in enumerate(frames):
        arrays |= {
            f"pixels_{row}": np.ascontiguousarray(each.pixels),
            f"descriptors_{row}": np.ascontiguousarray(each.descriptors),
            f"inverse_{row}": np.ascontiguousarray(each.inverse),
            f"sigma_{row}": np.ascontiguousarray(each.sigma),
        }
    return arrays


def _numbers(camera: Camera) -> list[float]:
    return [float(getattr(camera, name)) for name in _CAMERA]


def _camera(numbers: Float64) -> Camera:
    width, height, fx, fy, cx, cy = (float(each) for each in numbers)
    if not (np.isfinite(numbers).all() and min(width, height) >= 16 and min(fx, fy) > 0):
        raise ValueError("a camera is impossible")
    return Camera(int(width), int(height), fx, fy, cx, cy)


def keyframe_of(arrays: dict[str, NDArray[Any]], row: int, picture: bytes) -> MapKeyframe:
    """One keyframe of checked arrays. ValueError or KeyError where its own do not fit."""
    pixels, descriptors = arrays[f"pixels_{row}"], arrays[f"descriptors_{row}"]
    inverse, sigma = arrays[f"inverse_{row}"], arrays[f"sigma_{row}"]
    if pixels.dtype != np.float32 or pixels.shape != (len(pixels), 2):
        raise ValueError(f"features of keyframe {row}")
    if descriptors.dtype != np.uint8 or descriptors.shape != (len(pixels), 128):
        raise ValueError(f"descriptors of keyframe {row}")
    if inverse.dtype != np.float16 or inverse.ndim != 2 or sigma.shape != inverse.shape:
        raise ValueError(f"depth of keyframe {row}")
    return MapKeyframe(
        key=int(arrays["keys"][row]),
        frame_id=int(arrays["frame_ids"][row]),
        stamp_ns=int(arrays["stamps_ns"][row]),
        segment=int(arrays["segments"][row]),
        camera=_camera(arrays["cameras"][row]),
        picture=picture,
        lens=_camera(arrays["lenses"][row]),
        pixels=pixels,
        descriptors=descriptors,
        inverse=inverse,
        sigma=sigma.astype(np.float16),
        T_odom_cam=arrays["odom_poses"][row],
    )


def check_arrays(arrays: dict[str, NDArray[Any]], count: int) -> None:
    """ValueError or KeyError where the arrays do not fit each other."""
    for name in ("keys", "frame_ids", "stamps_ns", "segments", "steps"):
        if arrays[name].dtype != np.int64 or arrays[name].shape != (count,):
            raise ValueError(name)
    for name, shape in (("poses", (4, 4)), ("odom_poses", (4, 4)), ("cameras", (6,))):
        if arrays[name].shape != (count, *shape) or not np.isfinite(arrays[name]).all():
            raise ValueError(name)
    if len(set(arrays["keys"].tolist())) != count or arrays["keys"].min() < 0:
        raise ValueError("keys")
    if (arrays["steps"] < 1).any() or not (np.linalg.det(arrays["poses"][:, :3, :3]) > 0).all():
        raise ValueError("steps or poses")
    known = dict(arrays["islands"].tolist())
    if not set(arrays["segments"].tolist()) <= known.keys():
        raise ValueError("segments")
    if not np.isin(arrays["loop_keys"], arrays["keys"]).all():
        raise ValueError("loops")
    if not np.isfinite(arrays["loop_poses"]).all():
        raise ValueError("loops")


def loops_of(arrays: dict[str, NDArray[Any]]) -> list[Loop]:
    """The loops of checked arrays."""
    return [
        Loop(int(a), int(b), S, int(n), int(m), float(like), float(off))
        for (a, b), S, (n, m, like, off) in zip(
            arrays["loop_keys"], arrays["loop_poses"], arrays["loop_evidence"], strict=True
        )
    ]
