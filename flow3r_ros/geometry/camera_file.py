"""camera.json: the intrinsics of one camera on disk, read with every fault named, and written."""

from __future__ import annotations

import json
from pathlib import Path

from flow3r_ros.errors import CameraError, cause_of
from flow3r_ros.geometry.camera import check_camera
from flow3r_ros.mappings import read_mapping
from flow3r_ros.types import Camera

_CURE = "give width, height, fx, fy, cx, cy as in docs/desk.md"


def load_camera(path: str | Path, size: tuple[int, int] | None = None) -> Camera | None:
    """Read a camera.json; None when its intrinsics are null (unknown).

    Args:
        path: the file, keys as in `save_camera`; `distortion` may be null.
        size: (width, height) of the images the file must fit.

    Raises CameraError for unreadable JSON, missing keys, another image size, non-finite values or
    an unknown distortion model.
    """
    path = Path(path)
    try:
        data = read_mapping(path, CameraError, _CURE)
        width, height = int(data["width"]), int(data["height"])
        intrinsics = [data.get(key) for key in ("fx", "fy", "cx", "cy")]
        model = str(data.get("distortion_model") or "none").lower()
        distortion = tuple(float(value) for value in data.get("distortion") or ())
        known = [float(value) for value in intrinsics if value is not None]
    except KeyError as error:
        raise CameraError(f"{path}: has no {error.args[0]}", _CURE) from error
    except (TypeError, ValueError, AttributeError, OverflowError) as error:
        raise CameraError(f"{path}: not a camera file ({cause_of(error)})", _CURE) from error
    if size is not None and (width, height) != size:
        raise CameraError(
            f"{path}: made for {width}x{height}, images are {size[0]}x{size[1]}",
            "use the camera.json of this camera",
        )
    if not known:
        return None
    if len(known) != 4:
        raise CameraError(
            f"{path}: some of fx, fy, cx, cy are null", "give all four, or null for all four"
        )
    try:
        fx, fy, cx, cy = known
        return check_camera(
            Camera(
                width,
                height,
                fx,
                fy,
                cx,
                cy,
                model,
                distortion,
                estimated=bool(data.get("estimated", False)),
            )
        )
    except CameraError as error:
        raise CameraError(f"{path}: {error.what}", error.cure) from error


def save_camera(camera: Camera, path: Path) -> None:
    """Write a camera.json: width, height, fx, fy, cx, cy, distortion_model, distortion (and
    `estimated` when it is)."""
    data: dict[str, object] = {
        key: getattr(camera, key)
        for key in ("width", "height", "fx", "fy", "cx", "cy", "distortion_model")
    }
    data["distortion"] = list(camera.distortion)
    if camera.estimated:
        data["estimated"] = True
    path.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
