"""The one place that says what a path is: a video, a bag, pictures, a LeRobot dataset, or which
other thing, and what to do with that. Content decides, not the name.

Everything that opens a recording asks here; every refusal names what lies at the path and the cure
for exactly that.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Literal

from flow3r_ros.bags.formats import bag_format, first_bytes
from flow3r_ros.bags.storage import METADATA
from flow3r_ros.datasets import pictures, video
from flow3r_ros.datasets.layouts import find_pictures
from flow3r_ros.datasets.lerobot import is_lerobot
from flow3r_ros.errors import BagError, InputError, cause_of
from flow3r_ros.paths import natural_key

_DEPTH, _SHOWN = 4, 5
"""how deep sub-folders are looked through for recordings to name, and how many are named"""
_MOST_FOLDERS = 200
_PICTURE = re.compile(
    rb"\x89PNG\r\n\x1a\n|\xff\xd8\xff|BM....\0\0\0\0|II\*\0|MM\0\*|RIFF....WEBP|P[1-7]\s"
    rb"|....ftyp(?:heic|heix|mif1|avif)",
    re.DOTALL,
)
_OTHERS = tuple(
    (re.compile(magic, re.DOTALL), what, cure)
    for magic, what, cure in (
        (
            rb"#ROSBAG V1|#ROSRECORD",
            "a ROS 1 bag of an old format",
            "run `rosbag fix` on it",
        ),
        (
            rb"PK\x03\x04|\x1f\x8b|7z\xbc\xaf|Rar!|\xfd7zXZ|BZh|.{257}ustar",
            "an archive",
            "unpack it and give what is inside",
        ),
        (
            rb"\x28\xb5\x2f\xfd",
            "packed with zstd, and no bag is inside",
            "unpack it with `zstd -d` and give what is inside",
        ),
        (rb"\x89HDF", "an HDF5 file", "export its pictures to a folder"),
        (rb"\x93NUMPY", "a numpy array", "write its pictures to a folder"),
        (rb"ply\r?\n|# \.PCD", "a point cloud", "give the recording it was made of"),
        (rb"RIFF....WAVE|ID3|fLaC|%PDF", "no recording of pictures", "give the video or bag"),
    )
)
"""first bytes of what people give by mistake: what it is, and the cure"""


KINDS = {
    "video": "a video",
    "bag": "a bag",
    "pictures": "a folder of pictures",
    "lerobot": "a LeRobot dataset",
}
"""what each kind is called in a message"""


@dataclass(frozen=True)
class Recording:
    """What a path was found to be: `path` of the video file, of the bag (file or folder), of the
    root of a LeRobot dataset, or of the folder of pictures, with its `listing`."""

    kind: Literal["video", "bag", "pictures", "lerobot"]
    path: Path
    listing: pictures.Listing | None = None


def identify(path: Path) -> Recording:
    """The recording at `path`, or in the folder of one.

    A bag: mcap, sqlite3, ROS 1 (also unfinished), packed or not, a folder of them, its
    metadata.yaml. A folder: with one video, with pictures, a public data set's sequence, or a
    LeRobot dataset. Raises InputError for everything else.
    """
    if not path.exists():
        raise InputError(f"{path}: no such file or folder", "check the path")
    try:
        return _folder(path) if path.is_dir() else _file(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({cause_of(error)})", "check its permissions"
        ) from error


def bag_at(path: Path) -> Path:
    """The bag at `path`; BagError naming what else it is."""
    try:
        found = identify(path)
    except BagError:
        raise
    except InputError as error:
        raise BagError(error.what, error.cure) from error
    if found.kind != "bag":
        raise BagError(
            f"{path}: is {KINDS[found.kind]}, not a bag",
            "use `flow3r run` for it, or make a bag of it with `flow3r bags from-video`",
        )
    return found.path


def _file(path: Path) -> Recording:
    if path.name == METADATA and b"rosbag2_bagfile_information" in first_bytes(path):
        return Recording("bag", path.parent)
    if not path.is_file():
        raise InputError(
            f"{path}: is a device or a pipe, not a recording", "a live camera goes to `flow3r node`"
        )
    if bag_format(path):
        return Recording("bag", path)
    head = first_bytes(path)
    if not head:
        with path.open("rb"):
            raise InputError(f"{path}: is empty", "record or copy it again")
    for magic, what, cure in _OTHERS:
        if magic.match(head):
            raise InputError(f"{path}: is {what}", cure)
    if _PICTURE.match(head) and path.suffix.lower() not in video.SUFFIXES:
        raise InputError(
            f"{path}: one image is not a sequence", "give the folder, or the images as a video"
        )
    if _is_text(head):
        raise InputError(
            f"{path}: is a text file, not a video, bag or folder of pictures", "give the recording"
        )
    return Recording("video", path)


def _folder(path: Path) -> Recording:
    found = _sequence(path)
    if found is not None:
        return found
    below = list(islice(_recordings_below(path, _DEPTH), _SHOWN + 1))
    if below:
        raise InputError(
            f"{path}: no images, video or bag in it, but below it: {_names(below, path)}",
            "give one of them",
        )
    files = [item for item in path.iterdir() if item.is_file()]
    held = _names(files, path) if files else "no files"
    raise InputError(
        f"{path}: no images, video or bag in it ({held})", "give a folder or file that has some"
    )


def _sequence(path: Path) -> Recording | None:
    """The recording that a folder is, without a look at what lies below."""
    if is_lerobot(path):
        return Recording("lerobot", path)
    files = sorted((file for file in path.iterdir() if file.is_file()), key=natural_key)
    if (path / METADATA).is_file() or _bags_among(files):
        old = [file for file in files if bag_format(file) == "ros1"]
        if len(old) > 1:
            raise BagError(
                f"{path}: a folder of ROS 1 bags: {_names(old, path)}", "give one .bag file"
            )
        return Recording("bag", old[0] if old else path)
    videos = [
        file
        for file in files
        if file.suffix.lower() in video.SUFFIXES and file.suffix.lower() != ".gif"
    ]
    if len(videos) == 1:
        return Recording("video", videos[0])
    if len(videos) > 1:
        raise InputError(f"{path}: several videos: {_names(videos, path)}", "give the file itself")
    found = find_pictures(path)
    return None if found is None else Recording("pictures", *found)


def _recordings_below(folder: Path, depth: int) -> Iterator[Path]:
    """Folders below `folder` that can be given instead of it, in order of names."""
    inside = (item for item in folder.iterdir() if item.is_dir() and item.name[0] != ".")
    for item in sorted(inside, key=natural_key)[:_MOST_FOLDERS]:
        try:
            if _sequence(item) is not None:
                yield item
            elif depth > 1:
                yield from _recordings_below(item, depth - 1)
        except InputError:
            yield item
        except OSError:
            continue


def _bags_among(files: list[Path]) -> bool:
    """Whether a folder holds a bag file; pictures and videos are not opened to see."""
    known = (*pictures.SUFFIXES, *video.SUFFIXES, ".txt", ".csv", ".json")
    return any(file.suffix.lower() not in known and bag_format(file) for file in files)


def _names(paths: list[Path], root: Path) -> str:
    shown = [str(path.relative_to(root)) for path in paths[:_SHOWN]]
    return ", ".join(shown) + (", ..." if len(paths) > _SHOWN else "")


def _is_text(head: bytes) -> bool:
    try:
        head.decode("utf-8")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 3:
            return False
    return b"\0" not in head
