"""Which camera does this image have? ONE function answers, for node, replay and labelled bags.

| CameraInfo | answer | source |
|---|---|---|
| none, or K and P all zero (uncalibrated) | unknown, estimated | estimated |
| of another camera: other frame id, or no neighbour of the image's topic | not used | estimated |
| image topic `image_rect*`, or D has no entries | P's 3x3, no undistortion | info_p |
| the same, and P is zero | K, no undistortion | info_k |
| K zero, P given | P's 3x3, no undistortion | info_p |
| anything else | K and D | info_k |
| width and height zero | as above, of the image's size | |
| region of interest, binning | cut, then divided, where that gives the image's size | |
| the same, and K has it already | as it is | |
| another size than the image's all the same | not used | estimated |
| values of no camera (not finite, negative, 1e300, unknown lens) | not used | estimated |

Coefficients count as OpenCV takes them, and lens models go by the names that drivers write
(`geometry.distortion`). Frame ids are compared without leading slash and without `_frame`, `_link`,
`_optical` at their end; an empty one is nobody's.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from flow3r_ros.errors import CameraError
from flow3r_ros.geometry.camera import binned, check_camera, cropped, pinhole
from flow3r_ros.types import Camera
from flow3r_ros.wire.camera_info import InfoFields, Intrinsics

_RECTIFIED = re.compile(r"^(image_)?rect(ified)?(_.*)?$|_rect(ified)?(_color|_mono|_raw)?$")
_OTHER_SENSOR = re.compile(r"depth|infra|ir\d?$|thermal|left|right|stereo")
_SUFFIX = re.compile(r"(_optical|_frame|_link)+$")
_TRANSPORTS = ("compressed", "compressedDepth", "theora", "zstd", "ffmpeg")


@dataclass(frozen=True)
class CameraChoice:
    """What was decided about the camera of an image, and why.

    `camera` is None where it must be estimated; `source` is info_k, info_p, file or estimated;
    `why` is one clause for people.
    """

    camera: Camera | None
    source: str
    why: str

    def in_words(self) -> str:
        """One line for console and diagnostics."""
        if self.camera is None:
            return f"camera unknown, its focal length is estimated, or ASSUMED: {self.why}"
        camera = self.camera
        return (
            f"camera from {self.source}, {camera.distortion_model}, fx {camera.fx:.1f}, "
            f"fy {camera.fy:.1f}: {self.why}"
        )


def unknown(why: str) -> CameraChoice:
    """The choice to estimate the intrinsics."""
    return CameraChoice(None, "estimated", why)


def choose_camera(
    info: Any | None,
    size: tuple[int, int] | None = None,
    image_topic: str = "",
    image_frame: str = "",
    info_topic: str = "",
) -> CameraChoice:
    """The camera of images of `size` (width, height), by the table above; never raises.

    Args:
        info: CameraInfo message, None when there is none.
        size: size of the images; None takes what the CameraInfo says.
        image_topic: topic of the images, absolute; empty where unknown.
        image_frame: their frame id.
        info_topic: topic of the CameraInfo, absolute; empty where unknown.
    """
    if info is None:
        return unknown("no CameraInfo; calibrate for better results")
    fields = InfoFields.of(info)
    stranger = _stranger(fields.frame_id, image_frame, info_topic, image_topic)
    if stranger:
        return unknown(f"{stranger}; give --camera, or record and remap the right CameraInfo")
    if not any(fields.k) and not any(fields.p):
        return unknown("the camera is uncalibrated (CameraInfo.k is all zero)")
    intrinsics, source, why, raw = _matrix(fields, image_topic)
    try:
        full = Camera(
            fields.width,
            fields.height,
            *intrinsics,
            fields.model if raw else "none",
            fields.distortion if raw else (),
        )
        camera, cut = _fitted(full, fields, size)
        pinhole(camera)
    except CameraError as error:
        return unknown(f"CameraInfo is not used: {error}")
    return CameraChoice(camera, source, ", ".join(filter(None, (why, cut))))


def is_rectified(image_topic: str) -> bool:
    """Whether a topic's name says that its images are rectified (`image_rect`, `image_rect_color`,
    `rgb_rect`), transports aside."""
    return bool(_RECTIFIED.search(base_topic(image_topic).rsplit("/", 1)[-1]))


def base_topic(topic: str) -> str:
    """The image topic without the suffix of its transport."""
    base, _, last = topic.rpartition("/")
    return base if last in _TRANSPORTS and base else topic


def is_neighbour(info_topic: str, image_topic: str) -> bool:
    """Whether a CameraInfo topic can belong to an image topic: its namespace is that of the image,
    the image topic itself, or one of the two holds the other (`/camera/camera_info` and
    `/camera/color/image`), unless what is deeper names another sensor (`/camera/depth/camera_info`
    and `/camera/image`)."""
    info = _parts(info_topic)[:-1]
    *image, name = _parts(base_topic(image_topic)) or [""]
    if info in (image, [*image, name]):
        return True
    shared = min(len(info), len(image))
    deeper = info[shared:]
    return info[:shared] == image[:shared] and not any(map(_OTHER_SENSOR.search, deeper))


def _parts(topic: str) -> list[str]:
    return [part for part in topic.split("/") if part]


def _stranger(info_frame: str, image_frame: str, info_topic: str, image_topic: str) -> str:
    """Why the CameraInfo is that of another camera; empty when nothing says so."""
    image_frame = image_frame.lstrip("/")
    if info_frame and image_frame and _stem(info_frame) != _stem(image_frame):
        return f"CameraInfo is of frame {info_frame}, the images are of {image_frame}"
    if info_topic and image_topic and not is_neighbour(info_topic, image_topic):
        return f"{info_topic} is of another camera than {image_topic}"
    return ""


def _stem(frame: str) -> str:
    return _SUFFIX.sub("", frame)


def _matrix(fields: InfoFields, image_topic: str) -> tuple[Intrinsics, str, str, bool]:
    """(intrinsics, source, why, whether the images are still distorted) by the table."""
    rectified = is_rectified(image_topic)
    if rectified or not fields.distortion:
        why = f"{image_topic} is rectified" if rectified else "CameraInfo.d is empty"
        if any(fields.p):
            return fields.p, "info_p", f"{why}, CameraInfo.p holds", False
        return fields.k, "info_k", f"{why}, CameraInfo.p is zero, k holds", False
    if not any(fields.k):
        return fields.p, "info_p", "CameraInfo.k is zero, p is given", False
    return fields.k, "info_k", "raw images, CameraInfo.k and d hold", True


def _fitted(full: Camera, fields: InfoFields, size: tuple[int, int] | None) -> tuple[Camera, str]:
    """The camera of images of `size`, and how region and binning were taken.

    Raises CameraError when nothing gives that size.
    """
    if not full.width and not full.height and size is not None:
        full = replace(full, width=size[0], height=size[1])
        return check_camera(full), "CameraInfo has no size, taken for the images'"
    full = check_camera(full)
    candidates = [(full, "as it is")]
    x, y, width, height = fields.roi
    inside = x + width <= full.width and y + height <= full.height
    region = full
    if width and height and inside and (width, height) != (full.width, full.height):
        region = cropped(full, x, y, width, height)
        candidates.insert(0, (region, "region of interest cut"))
    bx, by = fields.binning
    if max(bx, by) > 1:
        for camera, how in candidates[::-1]:
            if bx <= camera.width and by <= camera.height:
                cut = f"{how}, binned {bx}x{by}" if how != "as it is" else f"binned {bx}x{by}"
                candidates.insert(0, (binned(camera, bx, by), cut))
    if size is None:
        camera, how = candidates[0]
    else:
        fitting = [item for item in candidates if (item[0].width, item[0].height) == size]
        if not fitting:
            raise CameraError(
                f"it is for {candidates[0][0].width}x{candidates[0][0].height}, images are "
                f"{size[0]}x{size[1]}"
            )
        camera, how = fitting[0]
    asked = max(bx, by) > 1 or bool(width and height)
    if how != "as it is":
        return check_camera(camera), how
    full_region = (width, height) == (full.width, full.height) and (x, y) == (0, 0)
    done = asked and not (full_region and max(bx, by) == 1)
    return camera, "its region of interest or binning is in it already" if done else ""
