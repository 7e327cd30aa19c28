"""Synthetic clips rendered once and kept as shards, so that training is not limited by the renderer
and the dense matcher.

A shard is one safetensors file of clips on one grid; ground truth is cast on that grid, evidence
comes from the real path: pictures of about 336 x 252 pixels through `geometry.evidence`. Clip k of
a set is a function of (seed, k) alone, so sets can be made in parallel and in pieces.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from flow3r_ros.errors import TrainingError
from flow3r_ros.geometry.correspondence import Matcher
from flow3r_ros.geometry.evidence import evidence_from_images
from flow3r_ros.storage import Location, entries
from flow3r_ros.training.checkpointing import write_safetensors
from flow3r_ros.training.remote_tensors import read_row, shape_of
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip
from flow3r_ros.training.scenes.textures import Split
from flow3r_ros.types import Camera, Evidence

logger = logging.getLogger(__name__)

Size = Literal["full", "small"]
# (width, height) as at run time, about 21 000 pixels, and with half the pixels for cheap early
# steps
GRIDS: dict[Size, Sequence[tuple[int, int]]] = {
    "full": ((168, 126), (182, 98), (126, 168), (196, 98), (154, 140), (224, 84)),
    "small": ((112, 84), (126, 70), (84, 112), (140, 70), (112, 98), (154, 56)),
}
_FRAMES = 4
_MATCHING_WIDTH = 336
_CLIPS_PER_SHARD = 24
_PATTERN = "scenes_*.safetensors"


def training_clip(
    seed: int,
    grids: Sequence[tuple[int, int]],
    textures: Split,
    frames: int = _FRAMES,
    device: str | None = None,
) -> list[Sample]:
    """One clip as an odometry window looks: older keyframes further apart, the newest frame at any
    distance from the last of them.

    Rendered and matched once, on the first grid's aspect ratio; one sample per grid (width,
    height), with flow labels from the newest frame to a random other frame and back. Torch casts
    rays on `device`, numpy where it is None.
    """
    rng = np.random.default_rng((seed, 17))
    width, height = _picture_size(grids[0])
    gaps = rng.uniform(0.6, 1.4, frames - 1)
    gaps[-1] *= rng.uniform(0.05, 1.0)
    times = np.concatenate([[0.0], np.cumsum(gaps)])
    clip = render_clip(
        seed,
        frames,
        width,
        height,
        textures=textures,
        times=times,
        shadows=None,
        motion_blur=True,
        device=device,
    )
    other = int(rng.integers(0, frames - 1))
    pairs = [(frames - 1, other), (other, frames - 1)]
    matcher = Matcher(width=_MATCHING_WIDTH)
    grays = [matcher.prepare(image) for image in clip.rgb]
    return [
        make_sample(
            clip,
            grid,
            pairs,
            evidence_from_images(grays, clip.camera, matcher, grid),
            f"{textures}:{seed}",
        )
        for grid in grids
    ]


def make_sample(
    clip: SceneClip,
    grid: tuple[int, int],
    pairs: list[tuple[int, int]],
    evidence: Evidence | None,
    name: str,
) -> Sample:
    """The clip on the network's grid with its exact depth, poses and flow labels."""
    small = clip.resized(*grid)
    flows = [small.flow(source, target) for source, target in pairs]
    return Sample(
        rgb=small.rgb,
        camera=small.camera,
        pairs=np.array(pairs, np.int64),
        flow=np.stack([flow for flow, _ in flows]),
        covisibility=np.stack([covisible for _, covisible in flows]).astype(np.float32),
        depth=small.depth,
        poses=small.poses,
        evidence=evidence,
        name=name,
    )


def write_shards(
    folder: Path,
    first: int,
    shards: int,
    textures: Split,
    sizes: Sequence[Size] = ("full", "small"),
    device: str | None = None,
) -> Iterator[Path]:
    """Render shards `first .. first + shards - 1` into `folder/full` and `folder/small`, skipping
    those that exist.

    Yields the path of each shard of the first of `sizes` as it is complete. Torch casts rays on
    `device`, numpy where it is None.
    """
    cv2.setNumThreads(1)
    for number in range(first, first + shards):
        paths = [folder / size / f"scenes_{number:06d}.safetensors" for size in sizes]
        if not paths[0].exists():
            grids = [GRIDS[size][number % len(GRIDS[size])] for size in sizes]
            clips = [
                training_clip(number * _CLIPS_PER_SHARD + index, grids, textures, device=device)
                for index in range(_CLIPS_PER_SHARD)
            ]
            for position in reversed(range(len(sizes))):
                write_safetensors(paths[position], pack([samples[position] for samples in clips]))
        yield paths[0]


@dataclass(frozen=True)
class _Shard:
    path: Location
    grid: tuple[int, int]
    clips: int


class SceneShards:
    """The clips of shard folders; `batch(step)` is a pure function of seed and step as long as the
    folders do not change.

    Raises TrainingError when there is no shard, or one cannot be read.
    """

    def __init__(self, folders: Sequence[Location], seed: int, clips_per_step: int) -> None:
        self._seed, self._clips_per_step = seed, clips_per_step
        paths = [path for folder in folders for path in entries(folder, _PATTERN)]
        if not paths:
            raise TrainingError(
                f"no {_PATTERN} in {', '.join(map(str, folders))}",
                "render them with python -m flow3r_ros.training.scenes.shards",
            )
        self._shards = [_describe(path) for path in paths]
        self._by_grid: dict[tuple[int, int], list[tuple[Location, int]]] = {}
        for shard in self._shards:
            self._by_grid.setdefault(shard.grid, []).extend(
                (shard.path, index) for index in range(shard.clips)
            )

    def __len__(self) -> int:
        return sum(shard.clips for shard in self._shards)

    def batch(self, step: int, part: slice = slice(None)) -> list[Sample]:
        """The samples of a step, or a part of them: one grid, drawn in proportion to its clips, and
        random clips of that grid."""
        rng = np.random.default_rng((self._seed, step))
        grids = sorted(self._by_grid)
        shares = np.array([len(self._by_grid[grid]) for grid in grids], np.float64)
        clips = self._by_grid[grids[int(rng.choice(len(grids), p=shares / shares.sum()))]]
        chosen = rng.choice(
            len(clips), self._clips_per_step, replace=len(clips) < self._clips_per_step
        )
        return [read_sample(*clips[index]) for index in chosen[part]]

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` clips one by one, shard after shard, for validation."""
        for grid in sorted(self._by_grid):
            clips = self._by_grid[grid]
            for path, index in clips[: max(1, limit * len(clips) // len(self))]:
                yield [read_sample(path, index)]


def read_sample(path: Location, index: int) -> Sample:
    """One clip of a shard; only its bytes are read. Raises TrainingError for a damaged shard."""
    part = read_row(path, index)
    frames, height, width = part["rgb"].shape[:3]
    fx, fy, cx, cy = (float(value) for value in part["intrinsics"])
    assert frames == len(part["poses"])
    return Sample(
        rgb=part["rgb"],
        camera=Camera(width, height, fx, fy, cx, cy),
        pairs=part["pairs"],
        flow=part["flow"].astype(np.float32),
        covisibility=part["covisibility"].astype(np.float32),
        depth=part["depth"].astype(np.float32),
        poses=part["poses"],
        evidence=Evidence(part["planes"].astype(np.float32), part["prior"]),
        name=f"{path.stem}:{index}",
    )


def pack(samples: list[Sample]) -> dict[str, torch.Tensor]:
    """Half precision where it costs nothing: depth is stored in units of its clip's median."""
    columns: dict[str, list[NDArray[np.generic]]] = {}
    for sample in samples:
        assert sample.depth is not None
        assert sample.poses is not None
        assert sample.evidence is not None
        unit = float(np.median(sample.depth))
        poses = sample.poses.copy()
        poses[:, :3, 3] /= unit
        camera = sample.camera
        row: dict[str, NDArray[np.generic]] = {
            "rgb": sample.rgb,
            "depth": np.minimum(sample.depth / unit, 6e4).astype(np.float16),
            "poses": poses,
            "intrinsics": np.array([camera.fx, camera.fy, camera.cx, camera.cy]),
            "pairs": sample.pairs,
            "flow": np.clip(sample.flow, -6e4, 6e4).astype(np.float16),
            "covisibility": sample.covisibility.astype(np.uint8),
            "planes": sample.evidence.planes.astype(np.float16),
            "prior": sample.evidence.poses,
        }
        for name, value in row.items():
            columns.setdefault(name, []).append(value)
    return {name: torch.from_numpy(np.stack(values)) for name, values in columns.items()}


def _describe(path: Location) -> _Shard:
    clips, _, height, width, _ = shape_of(path, "rgb")
    return _Shard(path, (width, height), clips)


def _picture_size(grid: tuple[int, int]) -> tuple[int, int]:
    """Width and height of the pictures behind a grid: its aspect ratio at the pixel count of 336 x
    252."""
    factor = np.sqrt(336 * 252 / (grid[0] * grid[1]))
    return round(grid[0] * factor), round(grid[1] * factor)


def main() -> None:
    """`python -m flow3r_ros.training.scenes.shards FOLDER`: render a set in this process, shard
    after shard, until it is complete."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument(
        "--first", type=int, default=0, help="number of the first shard; numbers are seeds"
    )
    parser.add_argument(
        "--shards", type=int, default=100, help=f"shards of {_CLIPS_PER_SHARD} clips"
    )
    parser.add_argument("--textures", choices=get_args(Split), default="train")
    parser.add_argument(
        "--device",
        help="cast rays in torch on this device (cuda); default: in numpy, the faster one on a CPU",
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    for path in write_shards(
        options.folder, options.first, options.shards, options.textures, device=options.device
    ):
        logger.info("%s", path)


if __name__ == "__main__":
    main()
