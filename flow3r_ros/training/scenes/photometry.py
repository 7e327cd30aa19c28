"""What a real camera adds to a rendered picture: exposure drift, vignetting, blur, noise and JPEG
blocks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from flow3r_ros.types import Float32, UInt8


@dataclass(frozen=True)
class Photometry:
    """Imperfections of one clip.

    `gain` per-frame colour gains `[N, 3]`; `gamma`; `vignette` share of light lost in the corners;
    `blur` standard deviation in pixels; `noise` standard deviation in grey levels; `jpeg` quality,
    0 = no compression; `smear` motion blur in pixels (x, y) per frame `[N, 2]`.
    """

    gain: Float32
    gamma: float
    vignette: float
    blur: float
    noise: float
    jpeg: int
    smear: Float32


def random_photometry(
    rng: np.random.Generator, frames: int, strength: float, motion_blur: bool
) -> Photometry:
    """Random imperfections; `strength` 0 leaves pictures as rendered, 1 is a mediocre phone."""
    drift = np.cumsum(rng.normal(0, 0.03 * strength, (frames, 1)), axis=0) + rng.normal(
        0, 0.015 * strength, (frames, 3)
    )
    base = rng.normal(0, 0.15 * strength) + rng.normal(0, 0.06 * strength, (1, 3))
    return Photometry(
        gain=np.exp(base + drift).astype(np.float32),
        gamma=float(np.exp(rng.normal(0, 0.2 * strength))),
        vignette=float(rng.uniform(0, 0.4 * strength)),
        blur=float(rng.choice((0.0, rng.uniform(0.3, 1.3))) * strength),
        noise=float(rng.exponential(2.0) * strength),
        jpeg=int(rng.integers(40, 96)) if strength > 0 and rng.random() < 0.7 else 0,
        smear=_random_smear(rng, frames, strength if motion_blur else 0.0),
    )


def develop(rgb: UInt8, photometry: Photometry, frame: int, rng: np.random.Generator) -> UInt8:
    """Apply the imperfections to one picture uint8 `[H, W, 3]`."""
    height, width = rgb.shape[:2]
    image = 255.0 * (rgb.astype(np.float32) / 255.0) ** np.float32(photometry.gamma)
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2) * 2.0
    image = image * photometry.gain[frame] * (1.0 - photometry.vignette * radius[..., None])
    if photometry.blur > 0.2:
        image = cv2.GaussianBlur(image, (0, 0), photometry.blur)
    if float(np.abs(photometry.smear[frame]).max()) >= 1:
        image = np.asarray(cv2.filter2D(image, -1, _line(photometry.smear[frame])), np.float32)
    if photometry.noise > 0:
        image = image + rng.standard_normal(image.shape, dtype=np.float32) * np.float32(
            photometry.noise
        )
    developed = np.clip(image, 0, 255).astype(np.uint8)
    if photometry.jpeg:
        _, packed = cv2.imencode(".jpg", developed, [cv2.IMWRITE_JPEG_QUALITY, photometry.jpeg])
        developed = np.asarray(cv2.imdecode(packed, cv2.IMREAD_COLOR), np.uint8)
    return np.asarray(developed, np.uint8)


def _random_smear(rng: np.random.Generator, frames: int, strength: float) -> Float32:
    """Motion blur of a clip: none in three of four, else a direction of its own for every frame
    around one of the clip."""
    if strength == 0 or rng.random() < 0.75:
        return np.zeros((frames, 2), np.float32)
    length, angle = rng.uniform(2, 8) * strength, rng.uniform(0, 2 * np.pi)
    angles = angle + rng.normal(0, 0.3, frames)
    lengths = length * rng.uniform(0.3, 1.0, frames)
    smear = lengths * np.stack([np.cos(angles), np.sin(angles)])
    return np.asarray(smear.T, np.float32)


def _line(smear: Float32) -> Float32:
    """Kernel of a straight motion of `smear` pixels (x, y)."""
    side = 2 * int(np.ceil(np.abs(smear).max() / 2)) + 1
    kernel, middle = np.zeros((side, side), np.float32), side // 2
    for share in np.linspace(-0.5, 0.5, 4 * side):
        column, row = np.rint(middle + share * smear).astype(int)
        kernel[row, column] += 1
    return np.asarray(kernel / kernel.sum(), np.float32)
