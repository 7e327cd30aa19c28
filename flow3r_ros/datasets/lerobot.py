"""LeRobot datasets, format v3: what `meta/` says about features, episodes and where their pictures
lie (https://huggingface.co/docs/lerobot/lerobot-dataset-v3).

Many episodes share one video file and one parquet file; an episode is a stretch of each. Metadata
is read with pyarrow (extra `lerobot`); the pictures are read in `lerobot_pictures`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flow3r_ros.errors import CameraError, InputError, cause_of, install_extra
from flow3r_ros.geometry.camera import check_camera
from flow3r_ros.mappings import read_mapping
from flow3r_ros.types import Camera

INFO = Path("meta/info.json")
EPISODES = Path("meta/episodes")
VERSION = "v3.0"
DOWNLOAD_AGAIN = "download the dataset again (hf download --repo-type dataset)"
_LFS = b"version https://git-lfs"
_DEPTH_MARKS = ("is_depth_map", "video.is_depth_map")
_NEEDED = ("episode_index", "length", "data/chunk_index", "data/file_index")

Choice = int | Literal["all"] | None
"""an episode's number, all of them one after another, or None: the only one there is"""


@dataclass(frozen=True)
class Episode:
    """One recording of a dataset: `length` frames, its rows in the parquet file `data`, and per
    video feature the file and the second at which it begins there."""

    index: int
    length: int
    data: Path
    videos: dict[str, tuple[Path, float]]


@dataclass(frozen=True)
class LeRobotDataset:
    """An opened dataset; `info` is `meta/info.json`, `fps` frames a second of every episode."""

    root: Path
    info: dict[str, Any]
    fps: float
    episodes: tuple[Episode, ...]

    @property
    def features(self) -> dict[str, dict[str, Any]]:
        """Key -> dtype, shape, names, as `info.json` has them."""
        return dict(self.info["features"])

    @property
    def cameras(self) -> list[str]:
        """Keys of the features that are pictures; depth images are none."""
        return [
            key
            for key, feature in self.features.items()
            if feature["dtype"] in ("video", "image") and not _is_depth(feature)
        ]

    def camera_key(self, wanted: str | None) -> str:
        """The key of one camera: its whole name, or the last part of it; None: the only one.

        Raises:
            InputError: no such camera, or several to choose from.
        """
        cameras = self.cameras
        listed = ", ".join(cameras) or "none"
        if wanted is None and len(cameras) == 1:
            return cameras[0]
        if wanted is None:
            what = "has several cameras" if cameras else "has no camera"
            raise InputError(f"{self.root}: {what} ({listed})", "choose one with --topic")
        found = [key for key in cameras if wanted in (key, key.rpartition(".")[2])]
        if len(found) != 1:
            raise InputError(
                f"{self.root}: no camera is called {wanted}", f"--topic takes one of {listed}"
            )
        return found[0]

    def chosen(self, choice: Choice) -> tuple[Episode, ...]:
        """The episodes of a choice.

        Raises:
            InputError: there is no such episode, or there are several and none was chosen.
        """
        last = len(self.episodes) - 1
        if choice == "all" or (choice is None and last == 0):
            return self.episodes
        if choice is None:
            raise InputError(
                f"{self.root}: holds {last + 1} episodes",
                f"choose one with --episode 0 to {last}; `flow3r export lerobot` takes them all",
            )
        if not 0 <= choice <= last:
            raise InputError(
                f"{self.root}: has no episode {choice}", f"--episode takes 0 to {last}"
            )
        return (self.episodes[choice],)

    def intrinsics(self, key: str) -> Camera | None:
        """The camera that the feature's `info` brings under `camera` (keys of camera.json), as
        `flow3r export` writes it; the format itself has no place for intrinsics.

        Raises:
            CameraError: it does not make sense.
        """
        given = _info(self.features[key]).get("camera")
        if given is None:
            return None
        try:
            size = int(given["width"]), int(given["height"])
            fx, fy, cx, cy = (float(given[name]) for name in ("fx", "fy", "cx", "cy"))
            model = str(given.get("distortion_model") or "none")
            distortion = tuple(float(value) for value in given.get("distortion") or ())
            estimated = bool(given.get("estimated", False))
            return check_camera(Camera(*size, fx, fy, cx, cy, model, distortion, estimated))
        except (KeyError, TypeError, ValueError, AttributeError, CameraError) as error:
            raise CameraError(
                f"{self.root / INFO}: the camera of {key} makes no sense ({error})",
                "mend it, or give --camera camera.json",
            ) from error


def is_lerobot(folder: Path) -> bool:
    """Whether a folder is a LeRobot dataset, of whatever version."""
    return (folder / INFO).is_file()


def open_lerobot(root: Path) -> LeRobotDataset:
    """Read a dataset's metadata.

    Raises:
        InputError: it is of another version, a file is missing or damaged, or pyarrow is.
    """
    info = read_mapping(root / INFO, InputError, DOWNLOAD_AGAIN)
    version = str(info.get("codebase_version", "unknown"))
    if not version.startswith("v3."):
        raise InputError(
            f"{root}: is a LeRobot dataset of version {version}, read is {VERSION}",
            "convert it with python -m lerobot.datasets.v30.convert_dataset_v21_to_v30"
            if version.startswith("v2.1")
            else f"convert it to {VERSION} with lerobot's own scripts",
        )
    try:
        features = {str(key): dict(value) for key, value in info["features"].items()}
        for feature in features.values():
            feature["dtype"], feature["shape"]
        fps = float(info["fps"])
        templates = str(info["data_path"]), str(info.get("video_path") or "")
        if not (math.isfinite(fps) and 0.1 < fps < 1000):
            raise ValueError(f"fps is {fps}")
        if any(".." in name or name.startswith("/") for name in (*templates, *features)):
            raise ValueError("a path leaves the dataset")
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            f"{root / INFO}: is not the info of a LeRobot dataset ({error!r})", DOWNLOAD_AGAIN
        ) from error
    videos = [key for key, feature in features.items() if feature["dtype"] == "video"]
    episodes = tuple(_episodes(root, templates, videos))
    if not episodes:
        raise InputError(f"{root}: holds no episode", "record one, or give another dataset")
    return LeRobotDataset(root, {**info, "features": features}, fps, episodes)


def stored(path: Path, what: str) -> Path:
    """A file of the dataset, which must be there and be more than a pointer of git-lfs.

    Raises:
        InputError: it is not.
    """
    try:
        with path.open("rb") as file:
            pointer = file.read(len(_LFS)) == _LFS
    except OSError as error:
        raise InputError(
            f"{path}: {what} cannot be read ({cause_of(error)})", DOWNLOAD_AGAIN
        ) from error
    if pointer:
        raise InputError(f"{path}: {what} is a pointer of git-lfs", "run git lfs pull there")
    return path


def read_table(path: Path, what: str, columns: list[str] | None = None, **options: Any) -> Any:
    """A parquet file as a pyarrow.Table; `options` go to `pyarrow.parquet.read_table`.

    Raises:
        InputError: it is missing or damaged, lacks a column, or pyarrow is not installed.
    """
    parquet = need_pyarrow()
    import pyarrow

    stored(path, what)
    try:
        table = parquet.read_table(path, columns=columns, **options)
    except (pyarrow.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0][:120]
        raise InputError(f"{path}: {what} is damaged ({reason})", DOWNLOAD_AGAIN) from error
    missing = sorted(set(columns or ()) - set(table.column_names))
    if missing:
        raise InputError(f"{path}: {what} lacks {', '.join(missing)}", DOWNLOAD_AGAIN)
    return table


def need_pyarrow() -> Any:
    """`pyarrow.parquet`. Raises InputError where it is not installed."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise InputError("LeRobot datasets need pyarrow", install_extra("lerobot")) from error
    return parquet


def _episodes(root: Path, templates: tuple[str, str], videos: list[str]) -> Iterator[Episode]:
    """The rows of `meta/episodes`, in order. Raises InputError where one makes no sense."""
    files = sorted((root / EPISODES).rglob("*.parquet"))
    if not files:
        raise InputError(f"{root / EPISODES}: the list of episodes is missing", DOWNLOAD_AGAIN)
    wanted = list(_NEEDED)
    for key in videos:
        wanted += [f"videos/{key}/{name}" for name in _VIDEO]
    expected = 0
    for file in files:
        for row in read_table(file, "the list of episodes", wanted).to_pylist():
            try:
                data = templates[0].format(
                    chunk_index=row["data/chunk_index"], file_index=row["data/file_index"]
                )
                found = {key: _stretch(root, templates[1], key, row) for key in videos}
                index, length = int(row["episode_index"]), int(row["length"])
                if index != expected or length < 1:
                    raise ValueError(f"episode {index} of {length} frames follows {expected - 1}")
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise InputError(
                    f"{file}: an episode makes no sense ({error!r})", DOWNLOAD_AGAIN
                ) from error
            yield Episode(index, length, root / data, found)
            expected += 1


_VIDEO = ("chunk_index", "file_index", "from_timestamp")


def _stretch(root: Path, template: str, key: str, row: dict[str, Any]) -> tuple[Path, float]:
    chunk, file, begin = (row[f"videos/{key}/{name}"] for name in _VIDEO)
    begin = float(begin)
    if not math.isfinite(begin) or begin < 0:
        raise ValueError(f"{key} begins at {begin} s")
    path = template.format(video_key=key, chunk_index=int(chunk), file_index=int(file))
    return root / path, begin


def _info(feature: dict[str, Any]) -> dict[str, Any]:
    found = feature.get("info") or feature.get("video_info") or {}
    return found if isinstance(found, dict) else {}


def _is_depth(feature: dict[str, Any]) -> bool:
    return any(_info(feature).get(mark) for mark in _DEPTH_MARKS)
