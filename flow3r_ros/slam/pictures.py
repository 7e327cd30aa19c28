"""Frames between the keyframes, kept for refinement: a handful of keyframes with wide steps between
them says less of the way than all pictures do."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.geometry.camera import Rectifier
from flow3r_ros.slam.keyframe import JPEG_QUALITY, MapKeyframe
from flow3r_ros.types import Camera, Float64, Frame, UInt8

MOST = 96
"""pictures that are kept; beyond it every second one goes, again and again"""


@dataclass(frozen=True)
class RefineView:
    """A picture to refine with: JPEG `picture` of a frame with the pinhole `camera`, and its pose
    `[4, 4]` in the map where that is known."""

    frame_id: int
    picture: bytes
    camera: Camera
    pose: Float64 | None

    def gray(self) -> UInt8:
        """The picture, uint8 `[H, W]`."""
        data = np.frombuffer(self.picture, np.uint8)
        return np.asarray(cv2.imdecode(data, cv2.IMREAD_GRAYSCALE), np.uint8)


class FramePictures:
    """Keeps evenly spaced pictures of a stream whose length nobody knows; memory is bounded."""

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._every = 1
        self._seen = 0
        self._kept: list[tuple[int, bytes, Camera | None]] = []
        self._camera: Camera | None = None

    def add(self, frame: Frame) -> None:
        """See a frame as it came."""
        self._camera = frame.camera or self._camera
        wanted = self._seen % self._every == 0
        self._seen += 1
        if not wanted:
            return
        if len(self._kept) == self._most:
            self._kept = self._kept[::2]
            self._every *= 2
            if (self._seen - 1) % self._every:
                return
        bgr = cv2.cvtColor(frame.rgb, cv2.COLOR_RGB2BGR)
        _, jpeg = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
        self._kept.append((frame.id, jpeg.tobytes(), self._camera))

    def between(self, keyframes: list[MapKeyframe]) -> list[RefineView]:
        """The kept pictures that are not keyframes, rectified as those are; their poses are not
        known. Pictures of another size than the keyframes' are left out."""
        taken = {each.frame_id for each in keyframes}
        pinhole = keyframes[0].camera
        rectifiers: dict[Camera, Rectifier] = {}
        views = []
        for id_, jpeg, camera in self._kept:
            if id_ in taken:
                continue
            view = RefineView(id_, jpeg, pinhole, None)
            if camera is not None:
                rectifier = rectifiers.setdefault(camera, Rectifier(camera))
                if camera.distortion_model != "none":
                    bgr = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR)
                    flat = rectifier.apply(np.asarray(bgr, np.uint8))
                    _, again = cv2.imencode(".jpg", flat, [cv2.IMWRITE_JPEG_QUALITY, JPEG_QUALITY])
                    jpeg = again.tobytes()
                view = RefineView(id_, jpeg, rectifier.rectified, None)
            if (view.camera.width, view.camera.height) == (pinhole.width, pinhole.height):
                views.append(view)
        return views
