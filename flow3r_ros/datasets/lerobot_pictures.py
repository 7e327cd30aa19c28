"""Pictures of a LeRobot dataset, one camera, one episode after another, as `flow3r run`, `label`
and `train` read them.

A feature of dtype video is a stretch of an mp4, one of dtype image lies encoded in the parquet
file. Stamps are frame / fps, as the format defines them, from 0.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from flow3r_ros.datasets.lerobot import (
    DOWNLOAD_AGAIN,
    Choice,
    Episode,
    LeRobotDataset,
    open_lerobot,
    read_table,
    stored,
)
from flow3r_ros.errors import FrameError, InputError
from flow3r_ros.types import Camera, UInt8
from flow3r_ros.wire.compressed import decode_bytes
from flow3r_ros.wire.tones import Tones

BETWEEN_NS = 60_000_000_000
"""time between the last frame of an episode and the first of the next, where several are read one
after another (int ns)"""


class LeRobotPictures:
    """Frames of one camera; a context manager that iterates over (stamp ns, rgb uint8 `[H, W, 3]`).

    Attributes as in `video.Video`; `camera` is what the dataset says of the lens (None: nothing),
    `key` the camera's feature. Raises InputError (CameraError for its lens) when opened.
    """

    def __init__(
        self, root: Path, key: str | None = None, choice: Choice = None, every: int = 1
    ) -> None:
        self.path, self.every = root, every
        self.drops: Counter[str] = Counter()
        self.notes: list[str] = []
        self._wanted, self._choice = key, choice

    def __enter__(self) -> LeRobotPictures:
        dataset = open_lerobot(self.path)
        self.key = dataset.camera_key(self._wanted)
        self.episodes = dataset.chosen(self._choice)
        self.camera: Camera | None = dataset.intrinsics(self.key)
        self.total: int | None = sum(episode.length for episode in self.episodes)
        self._dataset = dataset
        self._capture, self._opened = cv2.VideoCapture(), Path()
        for file in {episode.videos[self.key][0] for episode in self.episodes if self._is_video}:
            stored(file, "a video")
        if len(self.episodes) > 1:
            self.notes.append(f"{len(self.episodes)} episodes, {BETWEEN_NS // 10**9} s apart")
        return self

    def __exit__(self, *_: object) -> None:
        self._capture.release()

    def __iter__(self) -> Iterator[tuple[int, UInt8]]:
        begin, place = 0, 0
        for episode in self.episodes:
            decoded = self._video(episode) if self._is_video else self._images(episode)
            for frame, rgb in decoded:
                if (place + frame) % self.every == 0:
                    yield begin + frame_ns(self._dataset, frame), rgb
            begin += frame_ns(self._dataset, episode.length - 1) + BETWEEN_NS
            place += episode.length

    @property
    def _is_video(self) -> bool:
        return bool(self._dataset.features[self.key]["dtype"] == "video")

    def _video(self, episode: Episode) -> Iterator[tuple[int, UInt8]]:
        """(frame of the episode, rgb) of a stretch of a video; what is damaged is dropped."""
        (file, begin), fps = episode.videos[self.key], self._dataset.fps
        self._seek(file, begin, episode)
        for frame in range(episode.length):
            good, bgr = self._capture.read()
            if not good or bgr is None:
                missing = episode.length - frame
                self.drops["corrupt_image"] += -(-missing // self.every)
                self.notes.append(
                    f"episode {episode.index}: {file.name} ends {missing} frames early"
                )
                self._opened = Path()
                return
            late_s = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1e3 - begin - frame / fps
            if frame == 0 and abs(late_s) > 0.5 / fps:
                raise _no_frame(file, begin, episode)
            yield frame, np.asarray(cv2.cvtColor(bgr, cv2.COLOR_BGR2RGB), np.uint8)

    def _seek(self, file: Path, begin_s: float, episode: Episode) -> None:
        """Go to where an episode begins; nothing has to be done where the last one ended there."""
        first = round(begin_s * self._dataset.fps)
        if file != self._opened:
            self._capture.open(str(file.absolute()), cv2.CAP_FFMPEG)
            self._opened = file
            if not self._capture.isOpened():
                raise InputError(f"{file}: is not a video that can be opened", DOWNLOAD_AGAIN)
        if int(self._capture.get(cv2.CAP_PROP_POS_FRAMES)) != first:
            self._capture.set(cv2.CAP_PROP_POS_FRAMES, first)
        if int(self._capture.get(cv2.CAP_PROP_POS_FRAMES)) != first:
            raise _no_frame(file, begin_s, episode)

    def _images(self, episode: Episode) -> Iterator[tuple[int, UInt8]]:
        """(frame of the episode, rgb) of pictures in a parquet file."""
        tones = Tones(lambda key, text: self.notes.append(text))
        table = read_table(
            episode.data,
            "a data file",
            [self.key, "frame_index"],
            filters=[("episode_index", "=", episode.index)],
        )
        for row in range(table.num_rows):
            name = f"episode {episode.index}, frame {row}"
            value = table[self.key][row].as_py() or {}
            data = value.get("bytes") if isinstance(value, dict) else None
            try:
                if not data:
                    raise FrameError("corrupt_image", f"{name}: holds no picture")
                yield (
                    int(table["frame_index"][row].as_py()),
                    decode_bytes(np.frombuffer(data, np.uint8), name, tones),
                )
            except FrameError as error:
                self.drops[error.reason] += 1
                if self.drops[error.reason] == 1:
                    self.notes.append(f"unreadable images are skipped, the first: {error}")
        if table.num_rows < episode.length:
            missing = episode.length - table.num_rows
            self.drops["corrupt_image"] += missing
            self.notes.append(f"episode {episode.index}: {missing} rows are missing")


def _no_frame(file: Path, begin_s: float, episode: Episode) -> InputError:
    return InputError(
        f"{file}: holds no frame at {begin_s:.3f} s, where episode {episode.index} begins",
        DOWNLOAD_AGAIN,
    )


def frame_ns(dataset: LeRobotDataset, frame: int) -> int:
    """Stamp of a frame of an episode, from 0 (int ns)."""
    return round(frame * 1e9 / dataset.fps)
