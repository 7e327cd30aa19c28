"""`open_source(path)`: a video, an image folder, a clip folder, a rosbag or a LeRobot dataset as an
iterable of frames.

Whatever the kind: integer stamps, ids from 0, one camera, frames that cannot be used counted in
`drops`, and decoding ahead in a thread. Stamps and sizes are not judged here; the engine does that
for every source alike.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

from flow3r_ros.bags.reader import BagReader, Event
from flow3r_ros.datasets import pictures, video
from flow3r_ros.datasets.identify import KINDS, bag_at, identify
from flow3r_ros.datasets.lerobot import Choice
from flow3r_ros.datasets.lerobot_pictures import LeRobotPictures
from flow3r_ros.datasets.prefetch import Prefetch
from flow3r_ros.errors import FrameError, InputError
from flow3r_ros.geometry.camera_file import load_camera
from flow3r_ros.types import Camera, Frame
from flow3r_ros.wire.camera_choice import CameraChoice, unknown

CAMERA_FILE = "camera.json"
Reader = video.Video | pictures.Pictures | LeRobotPictures
"""what gives (stamp, picture) of a recording without messages"""


class Source(ABC):
    """Frames of one input; a context manager and an iterable (once).

    Attributes: `path` what is read; `total` frames to expect, None when unknown; `drops` counts
    unusable frames by reason; `notes` says in words what was lost or assumed; `decode_s` seconds
    spent reading and decoding.
    """

    def __init__(self, path: Path, every: int = 1, max_frames: int | None = None) -> None:
        self.path = path
        self.every = every
        self.max_frames = max_frames
        self._ahead: Prefetch[Event] | None = None

    @property
    @abstractmethod
    def drops(self) -> Counter[str]:
        """Unusable frames by reason."""

    @property
    @abstractmethod
    def notes(self) -> list[str]:
        """What was lost or assumed, in words."""

    @property
    @abstractmethod
    def camera(self) -> CameraChoice:
        """What was decided about the camera of the frames read so far, and why."""

    @property
    def total(self) -> int | None:
        """Frames to expect; None when unknown."""
        known = self._known_total()
        if known is None:
            return self.max_frames
        kept = -(-known // self.every)
        return kept if self.max_frames is None else min(kept, self.max_frames)

    @property
    def decode_s(self) -> float:
        """Seconds spent reading and decoding so far."""
        return self._ahead.busy_s if self._ahead else 0.0

    @abstractmethod
    def __enter__(self) -> Source: ...

    @abstractmethod
    def __exit__(self, *_: object) -> None: ...

    def __iter__(self) -> Iterator[Frame]:
        return (event for event in self.events() if isinstance(event, Frame))

    def events(self) -> Iterator[Event]:
        """Frames, and what else is wanted and recorded, in order, decoded ahead."""
        self._ahead = Prefetch(self._events())
        with self._ahead as ahead:
            yield from ahead

    @abstractmethod
    def _known_total(self) -> int | None: ...

    @abstractmethod
    def _events(self) -> Iterator[Event]: ...


class PictureSource(Source):
    """A video, an image folder or a LeRobot dataset with its camera.json; raises InputError and
    CameraError as those do."""

    def __init__(self, reader: Reader, camera: Path | None, max_frames: int | None) -> None:
        super().__init__(reader.path, reader.every, max_frames)
        self._reader = reader
        self._camera_file = camera
        self._choice = unknown("no camera.json")

    @property
    def drops(self) -> Counter[str]:
        """Unusable frames by reason."""
        return self._reader.drops

    @property
    def notes(self) -> list[str]:
        """What was lost or assumed, in words."""
        return self._reader.notes

    @property
    def camera(self) -> CameraChoice:
        """The camera of camera.json, else that which the data set publishes."""
        return self._choice

    def __enter__(self) -> Source:
        if self._camera_file is not None:
            load_camera(self._camera_file)
        self._reader.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead:
            self._ahead.close()
        self._reader.__exit__()

    def _known_total(self) -> int | None:
        return self._reader.total

    def _events(self) -> Iterator[Event]:
        for frame_id, (stamp, rgb) in enumerate(islice(iter(self._reader), self.max_frames)):
            if frame_id == 0:
                self._choice = self._choose((rgb.shape[1], rgb.shape[0]))
            yield Frame(frame_id, stamp, rgb, self._choice.camera)

    def _choose(self, size: tuple[int, int]) -> CameraChoice:
        """That of the camera file, else the data set's, where it fits the pictures."""
        if self._camera_file is not None:
            return _of_file(self._camera_file, size)
        published = _published(self._reader)
        if published is None:
            return self._choice
        if (published.width, published.height) != size:
            why = (
                f"the published calibration is for {published.width}x{published.height}, the "
                f"pictures are {size[0]}x{size[1]}; it is not used"
            )
            self.notes.append(why)
            return unknown(why)
        return CameraChoice(published, "file", "published with the data set")


class BagSource(Source):
    """One image topic of a bag; a camera.json overrides its CameraInfo. `reader` gives the rest of
    the bag."""

    def __init__(
        self,
        path: Path,
        topic: str | None = None,
        camera: Path | None = None,
        every: int = 1,
        max_frames: int | None = None,
        start: float = 0.0,
        duration: float | None = None,
        odometry: bool = False,
        imu: str | None = None,
    ) -> None:
        super().__init__(path, every, max_frames)
        self.reader = BagReader(bag_at(path), topic)
        self._choice = _of_file(camera) if camera else None
        self._camera_file = camera
        self._span, self._beside = (start, duration), (odometry, imu)
        self._first_error: FrameError | None = None

    @property
    def drops(self) -> Counter[str]:
        """Unusable frames by reason."""
        return self.reader.drops

    @property
    def notes(self) -> list[str]:
        """What was lost or assumed, in words."""
        return self.reader.notes

    @property
    def camera(self) -> CameraChoice:
        """The camera of camera.json, else that of the bag's CameraInfo."""
        return self._choice or self.reader.camera

    def camera_of(self, frame_id: int) -> CameraChoice:
        """The same for one frame that was given out."""
        return self._choice or self.reader.camera_of(frame_id)

    def __enter__(self) -> BagSource:
        self.reader.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        if self._ahead:
            self._ahead.close()
        self.reader.__exit__()

    def _known_total(self) -> int | None:
        return None if self._span != (0.0, None) else self.reader.total

    def _events(self) -> Iterator[Event]:
        frames = 0
        for event in self.reader.events(*self._span, self.every, *self._beside):
            if isinstance(event, Frame):
                if frames == self.max_frames:
                    return
                if frames == 0 and self._camera_file is not None:
                    load_camera(self._camera_file, (event.rgb.shape[1], event.rgb.shape[0]))
                frames += 1
                if self._choice is not None:
                    event = replace(event, camera=self._choice.camera)
            elif isinstance(event, FrameError):
                self._first_error = self._first_error or event
            yield event
        if frames == 0:
            raise self._nothing_usable()

    def _nothing_usable(self) -> InputError:
        """Why no image of the bag could be used: the first reason found, or the chosen time."""
        if self._first_error is None:
            return InputError(f"{self.path}: no image in the chosen time", "check start, duration")
        what = f"{self.path}: {self.reader.image_topic}: none of {sum(self.drops.values())} images"
        return InputError(f"{what} can be used: {self._first_error.what}", self._first_error.cure)


def _published(reader: Reader) -> Camera | None:
    """The camera that a data set brings along."""
    if isinstance(reader, LeRobotPictures):
        return reader.camera
    listing = reader.listing if isinstance(reader, pictures.Pictures) else None
    return listing.camera if listing else None


def _of_file(path: Path, size: tuple[int, int] | None = None) -> CameraChoice:
    camera = load_camera(path, size)
    if camera is None:
        return unknown(f"{path.name} leaves the intrinsics open")
    if camera.estimated:
        return CameraChoice(camera, "estimated", f"{path.name} says so")
    return CameraChoice(camera, "file", path.name)


def open_source(
    path: str | Path,
    topic: str | None = None,
    camera: str | Path | None = None,
    every: int = 1,
    max_frames: int | None = None,
    odometry: bool = False,
    imu: str | None = None,
    episode: Choice = None,
) -> Source:
    """The source at `path`: video file, image folder, rosbag (folder or file), LeRobot dataset, or
    a folder that holds one of them.

    Args:
        topic: image topic of a bag that has several, camera of a LeRobot dataset that has several.
        camera: camera.json; without it the one beside the images, or the bag's CameraInfo, is used.
        every: keep every k-th frame.
        max_frames: stop after this many frames.
        odometry, imu: what a bag brings along (`BagReader.events`).
        episode: which one of a LeRobot dataset, or `all`, which means nothing for other sources.

    Raises InputError (BagError for bags) when there is nothing to read.
    """
    path, camera = Path(path), None if camera is None else Path(camera)
    found = identify(path)
    if isinstance(episode, int) and found.kind != "lerobot":
        raise InputError(
            f"{path}: is {KINDS[found.kind]}", "--episode is for LeRobot datasets; leave it out"
        )
    if found.kind == "bag":
        return BagSource(found.path, topic, camera, every, max_frames, odometry=odometry, imu=imu)
    if topic is not None and found.kind != "lerobot":
        raise InputError(
            f"{path}: is {KINDS[found.kind]}",
            "--topic is for bags and LeRobot datasets; leave it out",
        )
    if found.kind == "lerobot":
        reader: Reader = LeRobotPictures(found.path, topic, episode, every)
    elif found.kind == "video":
        reader = video.Video(found.path, every)
    else:
        reader = pictures.Pictures(found.path, every, found.listing)
    inside = path if path.is_dir() else path.absolute().parent
    beside = (inside, found.path.absolute().parent, found.path)
    own = next(
        (folder / CAMERA_FILE for folder in beside if (folder / CAMERA_FILE).is_file()), None
    )
    return PictureSource(reader, camera or own, max_frames)
