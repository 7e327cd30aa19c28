"""A library of texture tiles, photographic and procedural, with mip levels in one atlas so that one
remap textures a whole frame.

Photographs are the ones inside the scikit-image wheel (nothing is downloaded); procedural tiles are
noise, stripes, checks, bricks, cells, print and nearly flat paint. The split `held_out` shares no
photograph and no procedural seed with `train`.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from flow3r_ros.errors import TrainingError, install_extra
from flow3r_ros.types import Float32, UInt8

Split = Literal["train", "held_out", "photographs"]

TILE = 512
LEVELS = 7
_COLUMNS = 8
_CELL_WIDTH = TILE + TILE // 2 + 4
_CELL_HEIGHT = TILE + 16
_PHOTOGRAPHS: dict[Split, tuple[str, ...]] = {
    "train": (
        "astronaut.png",
        "chelsea.png",
        "hubble_deep_field.jpg",
        "retina.jpg",
        "brick.png",
        "gravel.png",
        "camera.png",
        "horse.png",
        "text.png",
        "clock_motion.png",
        "cell.png",
    ),
    "held_out": ("coffee.png", "rocket.jpg", "ihc.png", "grass.png", "moon.png", "page.png"),
    "photographs": (
        "astronaut.png",
        "chelsea.png",
        "coffee.png",
        "rocket.jpg",
        "brick.png",
        "gravel.png",
        "grass.png",
        "camera.png",
    ),
}
PHOTOGRAPH_LICENCES = {
    "astronaut": "public domain (NASA)",
    "chelsea": "CC0",
    "hubble_deep_field": "public domain (NASA)",
    "retina": "CC0",
    "brick": "CC0",
    "gravel": "CC0",
    "camera": "CC0",
    "horse": "CC0",
    "text": "public domain",
    "clock_motion": "public domain",
    "cell": "CC0",
}
"""what scikit-image's `data` module says of the photographs that training sees; those that it is
silent about (moon, page) or calls "no known copyright restrictions" (coins, ihc) are not among
them"""
_PROCEDURAL = {"train": 37, "held_out": 18, "photographs": 8}
_FAMILIES = 8
_PLAIN = 6
_SEED = {"train": 11, "held_out": 1_000_003, "photographs": 77}


class TextureAtlas:
    """Tiles `uint8 [TILE, TILE, 3]` that repeat, each with `LEVELS` mip levels.

    `plain` are the indices of tiles with next to no texture: painted walls, overcast sky. `image`
    uint8 `[., ., 3]` holds everything; `origin` float32 `[tiles, LEVELS, 2]` is where (x, y) each
    level of a tile starts in it, inside a border of one repeated pixel.
    """

    def __init__(self, tiles: list[UInt8], plain: NDArray[np.int64]) -> None:
        self.plain = plain
        self.count = len(tiles)
        rows = (len(tiles) + _COLUMNS - 1) // _COLUMNS
        self.image = np.zeros((rows * _CELL_HEIGHT, _COLUMNS * _CELL_WIDTH, 3), np.uint8)
        self.origin = np.zeros((len(tiles), LEVELS, 2), np.float32)
        for index, tile in enumerate(tiles):
            self._place(index, tile)

    def _place(self, index: int, tile: UInt8) -> None:
        top, left = index // _COLUMNS * _CELL_HEIGHT, index % _COLUMNS * _CELL_WIDTH
        x, y = left, top
        for level in range(LEVELS):
            size = TILE >> level
            padded = cv2.copyMakeBorder(tile, 1, 1, 1, 1, cv2.BORDER_WRAP)
            self.image[y : y + size + 2, x : x + size + 2] = padded
            self.origin[index, level] = (x + 1, y + 1)
            x, y = (left + TILE + 2, top) if level == 0 else (x, y + size + 2)
            tile = np.asarray(
                cv2.resize(tile, (size // 2, size // 2), interpolation=cv2.INTER_AREA), np.uint8
            )

    def sample(self, tile: NDArray[np.int32], u: Float32, v: Float32, texels: Float32) -> UInt8:
        """Colours uint8 `[H, W, 3]` at repeating coordinates.

        Args:
            tile: int `[H, W]` index of the tile.
            u, v: float32 `[H, W]`, one unit per repetition of the tile.
            texels: float32 `[H, W]`, tile pixels covered by one image pixel; chooses the mip level.
        """
        level = np.clip(np.log2(np.maximum(texels, 1e-3)) + 0.25, 0, LEVELS - 1).astype(np.int32)
        size = np.float32(TILE) / (1 << level).astype(np.float32)
        origin = self.origin[tile, level]
        x = origin[..., 0] + (u - np.floor(u)) * size - np.float32(0.5)
        y = origin[..., 1] + (v - np.floor(v)) * size - np.float32(0.5)
        return np.asarray(cv2.remap(self.image, x, y, cv2.INTER_LINEAR), np.uint8)


@lru_cache(maxsize=3)
def texture_atlas(split: Split) -> TextureAtlas:
    """The atlas of a split, built once per process. Raises TrainingError where scikit-image is
    missing."""
    rng = np.random.default_rng(_SEED[split])
    photographs = [
        _photographic_tile(image, rng)
        for image in _photographs(split)
        for _ in range(2 if split == "train" else 1)
    ]
    procedural = [_procedural_tile(index % _FAMILIES, rng) for index in range(_PROCEDURAL[split])]
    plain = [
        len(photographs) + index for index in range(len(procedural)) if index % _FAMILIES == _PLAIN
    ]
    return TextureAtlas(photographs + procedural, np.array(plain))


def _photographs(split: Split) -> list[UInt8]:
    try:
        import skimage
    except ImportError as error:
        raise TrainingError(
            "the scene factory needs scikit-image's photographs", install_extra("train")
        ) from error
    folder = Path(skimage.__file__).parent / "data"
    images = []
    for name in _PHOTOGRAPHS[split]:
        image = cv2.imread(str(folder / name), cv2.IMREAD_COLOR)
        if image is None:
            raise TrainingError(
                f"scikit-image ships no {name}", "install the pinned version of scikit-image"
            )
        images.append(np.ascontiguousarray(image[:, :, ::-1]).astype(np.uint8))
    return images


def _photographic_tile(image: UInt8, rng: np.random.Generator) -> UInt8:
    """A random crop (60-100 % of the shorter side), mirrored at random, resized to the tile."""
    height, width = image.shape[:2]
    size = int(min(height, width) * rng.uniform(0.6, 1.0))
    top, left = int(rng.integers(0, height - size + 1)), int(rng.integers(0, width - size + 1))
    crop = image[top : top + size, left : left + size]
    if rng.random() < 0.5:
        crop = crop[:, ::-1]
    interpolation = cv2.INTER_AREA if size > TILE else cv2.INTER_CUBIC
    return np.asarray(
        cv2.resize(np.ascontiguousarray(crop), (TILE, TILE), interpolation=interpolation), np.uint8
    )


def _procedural_tile(family: int, rng: np.random.Generator) -> UInt8:
    """A tile of one of the families; noise lives on a torus, so most tiles repeat without a
    seam."""
    low, high = (rng.uniform(20, 235) + rng.normal(0, 22, 3) for _ in range(2))
    fine = _noise(rng, 8, 64) * 10.0
    y, x = np.mgrid[0:TILE, 0:TILE].astype(np.float32) / TILE
    if family == 0:
        shape = _noise(rng, 2, 128)
    elif family == 1:
        shape = (_noise(rng, 4, 64) > 0.5).astype(np.float32)
    elif family == 2:
        repeats = int(rng.integers(4, 20))
        shape = (
            ((np.floor(x * repeats) + np.floor(y * repeats)) % 2).astype(np.float32)
            if rng.random() < 0.5
            else (0.5 + 0.5 * np.sin(2 * np.pi * (repeats * x + int(rng.integers(0, 6)) * y)))
        )
    elif family == 3:
        shape = _bricks(x, y, rng)
    elif family == 4:
        shape = _cells(rng)
    elif family == 5:
        shape = _print(rng)
    elif family == _PLAIN:
        high = low + rng.uniform(-25, 25, 3)
        fine = _noise(rng, 4, 128) * rng.uniform(2, 10)
        shape = _noise(rng, 1, 4)
    else:
        high = low + rng.uniform(-60, 60, 3)
        shape = 0.5 + 0.5 * np.sin(
            2 * np.pi * (int(rng.integers(2, 9)) * x + 1.5 * _noise(rng, 2, 32))
        )
    image = low + (high - low) * shape[..., None] + fine[..., None]
    return np.clip(image, 0, 255).astype(np.uint8)


def _noise(rng: np.random.Generator, coarsest: int, finest: int) -> Float32:
    """Sum of octaves of cubic-interpolated noise on a torus, float32 `[TILE, TILE]` in [0, 1]."""
    total = np.zeros((TILE, TILE), np.float32)
    frequency, amplitude = coarsest, 1.0
    while frequency <= finest:
        grid = np.pad(rng.random((frequency, frequency)).astype(np.float32), 2, mode="wrap")
        step = TILE // frequency
        up = cv2.resize(
            grid, (grid.shape[1] * step, grid.shape[0] * step), interpolation=cv2.INTER_CUBIC
        )
        total += np.float32(amplitude) * up[2 * step : 2 * step + TILE, 2 * step : 2 * step + TILE]
        frequency, amplitude = frequency * 2, amplitude * 0.6
    low, high = float(total.min()), float(total.max())
    return (total - np.float32(low)) / np.float32(max(high - low, 1e-6))


def _bricks(x: Float32, y: Float32, rng: np.random.Generator) -> Float32:
    rows, columns = int(rng.integers(3, 10)) * 2, int(rng.integers(3, 10))
    row = np.floor(y * rows)
    across = x * columns + 0.5 * (row % 2)
    joint = (np.abs(across % 1 - 0.5) > 0.46) | (np.abs((y * rows) % 1 - 0.5) > 0.44)
    shade = rng.random((rows, columns + 1)).astype(np.float32)[
        row.astype(int), np.floor(across).astype(int) % columns
    ]
    return np.where(joint, np.float32(0), np.float32(0.5) + np.float32(0.5) * shade)


def _cells(rng: np.random.Generator) -> Float32:
    """Overlapping soft-edged discs of random grey on a torus."""
    image = np.full((TILE, TILE), 0.5, np.float32)
    for _ in range(int(rng.integers(20, 90))):
        centre, radius, grey = (
            rng.integers(0, TILE, 2),
            int(rng.integers(6, 70)),
            float(rng.random()),
        )
        for dx in (-TILE, 0, TILE):
            for dy in (-TILE, 0, TILE):
                cv2.circle(
                    image, (int(centre[0]) + dx, int(centre[1]) + dy), radius, grey, -1, cv2.LINE_AA
                )
    return image


def _print(rng: np.random.Generator) -> Float32:
    """Rectangles and words: posters, shelves, screens."""
    image = np.full((TILE, TILE), float(rng.random()), np.float32)
    for _ in range(int(rng.integers(10, 50))):
        x, y = (int(value) for value in rng.integers(0, TILE - 10, 2))
        w, h = (int(value) for value in rng.integers(8, 160, 2))
        cv2.rectangle(
            image, (x, y), (min(x + w, TILE - 1), min(y + h, TILE - 1)), float(rng.random()), -1
        )
    for _ in range(int(rng.integers(4, 25))):
        word = "".join(chr(int(code)) for code in rng.integers(65, 91, int(rng.integers(3, 9))))
        place = (int(rng.integers(0, TILE - 60)), int(rng.integers(20, TILE)))
        cv2.putText(
            image,
            word,
            place,
            cv2.FONT_HERSHEY_DUPLEX,
            float(rng.uniform(0.4, 2.0)),
            float(rng.random()),
            2,
            cv2.LINE_AA,
        )
    return image
