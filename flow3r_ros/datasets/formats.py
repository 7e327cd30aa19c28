"""Which public data set a folder belongs to, by the files that only it has, and its sequences.

`find_sequences(root)` is the one way in for `flow3r run`, training and whoever else is given a data
set's root or the folder of one sequence. Labelled bags are not recognised by content (their topics
have to be named): see `labelled_bag`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flow3r_ros.datasets.co3d import ANNOTATIONS, read_co3d
from flow3r_ros.datasets.indoor import read_neural_rgbd, read_scannet, read_seven_scenes
from flow3r_ros.datasets.moving import read_euroc, read_kitti
from flow3r_ros.datasets.rgbd import read_rgbd
from flow3r_ros.datasets.sequence import Sequence
from flow3r_ros.datasets.sintel import read_sintel
from flow3r_ros.datasets.tartanair import read_tartanair

DEPTH = 4
"""levels below a root where sequences lie at most (TartanAir: scene/Easy/image/P000)"""


@dataclass(frozen=True)
class Format:
    """A public format: its name, whether a folder is one sequence of it (or one CO3D category), and
    how that is read."""

    name: str
    matches: Callable[[Path], bool]
    read: Callable[[Path], list[Sequence]]


@dataclass(frozen=True)
class SequenceFolder:
    """A recognised folder; nothing of it has been read yet."""

    format: str
    path: Path
    read: Callable[[Path], list[Sequence]]

    def sequences(self) -> list[Sequence]:
        """Its sequences (one; of a CO3D category, all of them).

        Raises:
            InputError: a file is missing or damaged.
            EvaluationError: a TUM trajectory file is damaged.
        """
        return self.read(self.path)


def _has(*names: str) -> Callable[[Path], bool]:
    return lambda folder: all((folder / name).exists() for name in names)


def _one(read: Callable[[Path], Sequence]) -> Callable[[Path], list[Sequence]]:
    return lambda folder: [read(folder)]


def _is_kitti(folder: Path) -> bool:
    pictures = any((folder / name).is_dir() for name in ("image_2", "image_0"))
    return pictures and _has("calib.txt", "times.txt")(folder)


def _is_sintel(folder: Path) -> bool:
    """A scene of the final pass (the clean pass shows the same frames again)."""
    folder = folder.absolute()
    return folder.parent.name == "final" and (folder / "frame_0001.png").exists()


def _is_co3d(folder: Path) -> bool:
    in_category = (folder.absolute().parent / ANNOTATIONS).exists()
    return (folder / ANNOTATIONS).exists() or (in_category and (folder / "images").is_dir())


FORMATS = (
    Format("TUM RGB-D or Bonn", _has("rgb.txt"), _one(read_rgbd)),
    Format("EuRoC MAV", _has("mav0/cam0/data.csv"), _one(read_euroc)),
    Format("EuRoC MAV", _has("cam0/data.csv", "cam0/sensor.yaml"), _one(read_euroc)),
    Format("KITTI odometry", _is_kitti, _one(read_kitti)),
    Format(
        "7-Scenes",
        lambda folder: any(folder.glob("frame-*.color.png")),
        _one(read_seven_scenes),
    ),
    Format("ScanNet", _has("color", "intrinsic/intrinsic_color.txt"), _one(read_scannet)),
    Format("Neural RGB-D", _has("images", "poses.txt", "focal.txt"), _one(read_neural_rgbd)),
    Format("TartanAir", _has("image_left", "pose_left.txt"), _one(read_tartanair)),
    Format("CO3D", _is_co3d, read_co3d),
    Format("MPI Sintel", _is_sintel, _one(read_sintel)),
)


def find_sequences(root: Path) -> list[SequenceFolder]:
    """The sequence folders of public data sets at or below `root`, sorted by path; empty when there
    are none.

    Nothing but names of files is looked at, so the answer is quick; folders inside a sequence are
    not searched.
    """
    return _search(root, DEPTH) if root.is_dir() else []


def _search(folder: Path, depth: int) -> list[SequenceFolder]:
    try:
        for known in FORMATS:
            if known.matches(folder):
                return [SequenceFolder(known.name, folder, known.read)]
        inside = sorted(path for path in folder.iterdir() if path.is_dir()) if depth else []
    except OSError:  # not ours to look into
        return []
    return [found for path in inside for found in _search(path, depth - 1)]
