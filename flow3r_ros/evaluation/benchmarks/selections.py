"""Which sequences and frames of a data set each benchmark takes, following pi3 and MonST3R.

Every function takes the folder of the download and returns the sequences with a true pose for every
frame.

Raises (all of them):
    InputError: a piece of the download is missing or damaged.
"""

from __future__ import annotations

import re
from pathlib import Path

from flow3r_ros.datasets.co3d import ANNOTATIONS, read_co3d
from flow3r_ros.datasets.files import need, need_any
from flow3r_ros.datasets.indoor import read_neural_rgbd, read_scannet, read_seven_scenes
from flow3r_ros.datasets.moving import read_euroc, read_kitti
from flow3r_ros.datasets.rgbd import read_rgbd
from flow3r_ros.datasets.sequence import Sequence
from flow3r_ros.datasets.sintel import read_sintel
from flow3r_ros.errors import InputError

SINTEL_SCENES = (
    *("alley_2", "ambush_4", "ambush_5", "ambush_6", "cave_2", "cave_4", "market_2"),
    *("market_5", "market_6", "shaman_3", "sleeping_1", "sleeping_2", "temple_2", "temple_3"),
)
"""those of pi3 and MonST3R, which leave out scenes whose camera stands still"""
BONN_SEQUENCES = ("balloon2", "crowd2", "crowd3", "person_tracking2", "synchronous")
BONN_FRAMES = range(30, 140)


def sintel(root: Path) -> list[Sequence]:
    """The 14 scenes of the final pass, or those of them that are present."""
    training = root / "training" if (root / "training").is_dir() else root
    folders = need_any(training / "final", "*", "the final pass, training/final/SCENE")
    present = [folder for folder in folders if folder.name in SINTEL_SCENES]
    if not present:
        raise InputError(
            f"{training / 'final'}: holds none of the 14 scenes {', '.join(SINTEL_SCENES)}",
            "unpack the final pass",
        )
    absent = len(SINTEL_SCENES) - len(present)
    notes = (f"{absent} of the 14 scenes are not present",) if absent else ()
    read = [read_sintel(folder).with_truth(depth=True) for folder in present]
    return [Sequence(scene.name, scene.shots, (*scene.notes, *notes)) for scene in read]


def tum_dynamics(root: Path) -> list[Sequence]:
    """The eight dynamic freiburg3 sequences (sitting and walking)."""
    folders = need_any(
        root,
        "rgbd_dataset_freiburg3_*",
        "folders of the dynamic sequences, rgbd_dataset_freiburg3_{sitting,walking}_*",
    )
    dynamic = [folder for folder in folders if folder.name.split("_")[3] in ("sitting", "walking")]
    if not dynamic:
        raise InputError(
            f"{root}: has no sequence named rgbd_dataset_freiburg3_sitting_* or ..._walking_*",
            "download the dynamic ones",
        )
    return [read_rgbd(folder).with_truth(depth=True) for folder in dynamic]


def bonn(root: Path) -> list[Sequence]:
    """Frames 30 to 140 of balloon2, crowd2, crowd3, person_tracking2 and synchronous; of others
    where none of these is present."""
    base = root / "rgbd_bonn_dataset" if (root / "rgbd_bonn_dataset").is_dir() else root
    folders = need_any(base, "rgbd_bonn_*", "sequence folders, rgbd_bonn_<name>")
    named = [f for f in folders if f.name.removeprefix("rgbd_bonn_") in BONN_SEQUENCES]
    read = [read_rgbd(folder).with_truth(depth=True) for folder in named or folders]
    return [
        sequence.only(list(BONN_FRAMES)) if len(sequence) >= BONN_FRAMES.stop else sequence
        for sequence in read
    ]


def kitti_odometry(root: Path) -> list[Sequence]:
    """Sequences with poses (00 to 10)."""
    base = root / "dataset" if (root / "dataset" / "sequences").is_dir() else root
    poses = need_any(base / "poses", "*.txt", "true poses, poses/NN.txt")
    folders = [base / "sequences" / path.stem for path in poses]
    present = [folder for folder in folders if folder.is_dir()]
    if not present:
        raise InputError(
            f"{base / 'sequences'}: no sequence with poses is present", "unpack the image archive"
        )
    return [read_kitti(folder).with_truth() for folder in present]


def euroc(root: Path) -> list[Sequence]:
    """Every sequence folder `NAME/mav0`, the frames with a true state around them."""
    folders = need_any(root, "*/mav0/cam0", "sequence folders NAME/mav0")
    return [read_euroc(path.parent.parent).with_truth() for path in folders]


def scannet(root: Path) -> list[Sequence]:
    """Every folder `sceneXXXX_YY`."""
    folders = need_any(root, "scene*_*", "scene folders written by SensReader")
    return [read_scannet(folder).with_truth(depth=True) for folder in folders]


def seven_scenes(root: Path) -> list[Sequence]:
    """The sequences that each scene's `TestSplit.txt` names."""
    folders = []
    for split in need_any(root, "*/TestSplit.txt", "scene folders with TestSplit.txt"):
        for line in split.read_text(encoding="utf-8").split():
            name = f"seq-{int(re.sub(r'[^0-9]', '', line) or 0):02d}"
            what = "test sequence named in TestSplit.txt (unpack its zip)"
            folders.append(need(split.parent / name, what))
    return [read_seven_scenes(folder).with_truth(depth=True) for folder in folders]


def neural_rgbd(root: Path) -> list[Sequence]:
    """Every scene folder with `poses.txt`."""
    folders = need_any(root, "*/poses.txt", "scene folders with poses.txt")
    return [read_neural_rgbd(path.parent).with_truth(depth=True) for path in folders]


def co3d(root: Path) -> list[Sequence]:
    """Every annotated sequence of every category whose images are present."""
    paths = need_any(root, f"*/{ANNOTATIONS}", "annotations of a category")
    return [sequence for path in paths for sequence in read_co3d(path.parent)]
