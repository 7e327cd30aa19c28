"""Dense correspondence between two images: the only dense-flow code in the house.

OpenCV's DIS runs both ways; a pixel counts as covisible when forward and backward flow agree. Where
that fails for most of the image (wide gaps), sparse features propose a flow field and DIS starts
again from it; as a last resort the sparse matches stand alone. Measured on real clips
(`docs/results.md`): resolution decides, so images of every aspect ratio get the pixel count of a
4:3 image of the given width.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import cv2
import numpy as np

from flow3r_ros.geometry.flow import (
    compose,
    inside,
    pixel_grid,
    resize_flow,
    sample,
    squared_length,
    warp,
)
from flow3r_ros.geometry.sparse import flow_through_matches, match_features
from flow3r_ros.types import Bool, Float32, UInt8

_TEXTURE = 3.0
"""gray levels per pixel: gradient at which flow is half trusted; sensor noise stays below"""
FLOW_NOISE_PX = 0.5
"""1-sigma of a covisible flow vector, pixels of the correspondence grid: what triangulation, pose
refinement and bundle adjustment whiten by"""
ENOUGH = 0.35
"""covisible share below which dense flow has failed"""


@dataclass(frozen=True)
class Correspondence:
    """Where the pixels of image a are in image b, and the other way round; one grid `[h, w]`.

    `flow` float32 `[h, w, 2]` pixels a -> b; `covisibility` float32 `[h, w]` in 0..1 from
    forward-backward agreement; `texture` float32 `[h, w]` in 0..1, low where the image cannot
    localise a match; `backward*` the same for b -> a; `reason` is empty, or why it is weak:
    `textureless`, `blur`, `too_large_motion`; `sparse` marks a field that is valid at feature
    matches only.
    """

    flow: Float32
    covisibility: Float32
    texture: Float32
    backward: Float32
    backward_covisibility: Float32
    backward_texture: Float32
    reason: str = ""
    sparse: bool = False

    @property
    def share(self) -> float:
        """Covisible share of image a, 0..1."""
        return float(self.covisibility.mean())

    @property
    def covisible(self) -> Bool:
        """Pixels of image a that image b sees, bool `[h, w]`: more likely than not."""
        return np.asarray(self.covisibility > 0.5)

    def reversed(self) -> Correspondence:
        """The same correspondence from b to a."""
        return Correspondence(
            self.backward,
            self.backward_covisibility,
            self.backward_texture,
            self.flow,
            self.covisibility,
            self.texture,
            self.reason,
            self.sparse,
        )


@dataclass(frozen=True)
class Picture:
    """An image ready to be matched: `gray` uint8 `[h, w]`, its `texture` (`texture_weight`), and
    its `flaw`: empty, `textureless` or `blur`. Odometry keeps it with a frame, because every frame
    is matched several times."""

    gray: UInt8
    texture: Float32
    flaw: str

    @classmethod
    def of(cls, gray: UInt8) -> Picture:
        """Look at a gray image once. ValueError when it has channels."""
        if gray.ndim != 2:
            raise ValueError(f"a gray image is needed, got shape {gray.shape}")
        texture = texture_weight(gray)
        return cls(gray, texture, _flaw(gray, texture))


def matching_size(width: int, height: int, matching_width: int) -> tuple[int, int]:
    """(w, h) of the correspondence grid: aspect kept, as many pixels as a 4:3 image of
    `matching_width`, never enlarged."""
    scale = min(1.0, matching_width * np.sqrt(0.75 / (width * height)))
    return max(16, round(width * scale)), max(16, round(height * scale))


def prepare_gray(rgb: UInt8, width: int = 336) -> UInt8:
    """Gray image on the correspondence grid, uint8 `[h, w]`, from RGB `[H, W, 3]` or gray `[H,
    W]`."""
    size = matching_size(rgb.shape[1], rgb.shape[0], width)
    small = cv2.resize(rgb, size, interpolation=cv2.INTER_AREA)
    return np.asarray(
        small if small.ndim == 2 else cv2.cvtColor(small, cv2.COLOR_RGB2GRAY), dtype=np.uint8
    )


def along(matches: Float32, width: int, height: int) -> Correspondence:
    """A field through matches `[n, 4]` (x, y in a; x, y in b), 3 or more: a good start for a wide
    gap, no more."""
    unknown = np.zeros((height, width), np.float32)
    there, back = (
        flow_through_matches(each, width, height, cell=16)
        for each in (matches, matches[:, [2, 3, 0, 1]])
    )
    return Correspondence(there, unknown, unknown, back, unknown, unknown, sparse=True)


def chain(ab: Correspondence, bc: Correspondence) -> Correspondence:
    """Correspondence a -> c through b: composed flows, multiplied covisibility; a good start for a
    wide gap."""
    forward, backward = compose(ab.flow, bc.flow), compose(bc.backward, ab.backward)
    covisible = ab.covisibility * warp(bc.covisibility, ab.flow)
    covisible_back = bc.backward_covisibility * warp(ab.backward_covisibility, bc.backward)
    reason = ab.reason or bc.reason
    return Correspondence(
        forward,
        covisible,
        ab.texture,
        backward,
        covisible_back,
        bc.backward_texture,
        reason,
        ab.sparse or bc.sparse,
    )


def agreement(forward: Float32, backward: Float32) -> Float32:
    """Soft covisibility `[h, w]` in 0..1: how well `backward` leads home; 0 outside the other
    image.

    Half-way down at 0.6 px plus 3 % of the displacement.
    """
    height, width = forward.shape[:2]
    target = pixel_grid(width, height) + forward
    home = sample(backward, target)
    home += forward
    tolerance = 0.7 + 0.035 * np.sqrt(squared_length(forward))
    soft: Float32 = np.exp(-squared_length(home) / (tolerance * tolerance))
    soft *= inside(target, width, height)
    return soft


def texture_weight(gray: UInt8) -> Float32:
    """How well each pixel can be localised, float32 `[h, w]` in 0..1, from the mean squared
    gradient in a 9 x 9 window."""
    smooth = cv2.GaussianBlur(gray, (3, 3), 0)
    dx, dy = (
        cv2.Sobel(smooth, cv2.CV_32F, 1, 0, scale=0.125),
        cv2.Sobel(smooth, cv2.CV_32F, 0, 1, scale=0.125),
    )
    energy = cv2.boxFilter(dx * dx + dy * dy, cv2.CV_32F, (9, 9))
    return np.asarray(energy / (energy + _TEXTURE**2), dtype=np.float32)


class Matcher:
    """Dense flow both ways between gray images of one size; deterministic; one instance per thread.

    Args:
        width: width in pixels of the grid for a 4:3 image (see `matching_size`).
        sparse_fallback: match SIFT features where dense flow fails.
        threads: 2 computes both directions at the same time.
    """

    def __init__(self, width: int = 336, sparse_fallback: bool = True, threads: int = 1) -> None:
        self.width = width
        self.sparse_fallback = sparse_fallback
        self._engines = (_dis(), _dis())
        self._pool = (
            ThreadPoolExecutor(1, thread_name_prefix="backward-flow") if threads > 1 else None
        )

    def prepare(self, rgb: UInt8) -> UInt8:
        """`prepare_gray` at this matcher's width."""
        return prepare_gray(rgb, self.width)

    def flow(
        self,
        image_a: UInt8 | Picture,
        image_b: UInt8 | Picture,
        initial: Correspondence | None = None,
    ) -> Correspondence:
        """Correspondence from a to b, uint8 `[h, w]` each or looked at already; `initial` (any
        grid) starts the search.

        ValueError for unequal shapes.
        """
        a, b = (
            image if isinstance(image, Picture) else Picture.of(image)
            for image in (image_a, image_b)
        )
        if a.gray.shape != b.gray.shape:
            raise ValueError(
                f"two gray images of one shape are needed, got {a.gray.shape} and {b.gray.shape}"
            )
        textures = a.texture, b.texture
        best = (
            self._straightened(a.gray, b.gray, textures, initial)
            if initial
            else self._dense(a.gray, b.gray, textures, None)
        )
        if initial is not None and best.share < ENOUGH:
            best = max(best, self._dense(a.gray, b.gray, textures, None), key=_trust)
        reason = "textureless" if "textureless" in (a.flaw, b.flaw) else a.flaw or b.flaw
        if best.share < ENOUGH and reason != "textureless":
            reason = reason or "too_large_motion"
            if self.sparse_fallback:
                best = self._through_features(a.gray, b.gray, textures, best)
        found = best.share >= ENOUGH and reason == "too_large_motion"
        return replace(best, reason="" if found else reason)

    def _dense(
        self,
        gray_a: UInt8,
        gray_b: UInt8,
        textures: tuple[Float32, Float32],
        start: Correspondence | None,
    ) -> Correspondence:
        ab, ba = (None, None) if start is None else (start.flow, start.backward)
        forward, backward = self._both((gray_a, gray_b, ab), (gray_b, gray_a, ba))
        return _checked(forward, backward, textures)

    def _straightened(
        self, gray_a: UInt8, gray_b: UInt8, textures: tuple[Float32, Float32], start: Correspondence
    ) -> Correspondence:
        """DIS between each image and the other one warped onto it: follows rotation and zoom, which
        its upright patches cannot."""
        size = (gray_a.shape[1], gray_a.shape[0])
        ab, ba = resize_flow(start.flow, *size), resize_flow(start.backward, *size)
        forward, backward = self._both(
            (gray_a, warp(gray_b, ab), None), (gray_b, warp(gray_a, ba), None)
        )
        return _checked(compose(forward, ab), compose(backward, ba), textures)

    def _both(
        self, there: tuple[UInt8, UInt8, Float32 | None], back: tuple[UInt8, UInt8, Float32 | None]
    ) -> tuple[Float32, Float32]:
        """Flow of two (from, to, start) tasks, at the same time when there is a pool."""
        if self._pool is None:
            return self._run(0, *there), self._run(1, *back)
        other = self._pool.submit(self._run, 1, *back)
        return self._run(0, *there), other.result()

    def _run(self, engine: int, source: UInt8, target: UInt8, start: Float32 | None) -> Float32:
        flow = np.zeros((*source.shape, 2), dtype=np.float32) if start is None else start.copy()
        return np.asarray(self._engines[engine].calc(source, target, flow), dtype=np.float32)

    def _through_features(
        self, gray_a: UInt8, gray_b: UInt8, textures: tuple[Float32, Float32], dense: Correspondence
    ) -> Correspondence:
        """DIS restarted from interpolated feature matches, or the bare matches when that does not
        agree with itself either."""
        matches = match_features(gray_a, gray_b)
        if len(matches) < 16:
            return dense
        size = (gray_a.shape[1], gray_a.shape[0])
        swapped = matches[:, [2, 3, 0, 1]]
        start = _checked(
            flow_through_matches(matches, *size), flow_through_matches(swapped, *size), textures
        )
        restarted, straightened = (
            self._dense(gray_a, gray_b, textures, start),
            self._straightened(gray_a, gray_b, textures, start),
        )
        best = max(dense, restarted, straightened, key=_trust)
        if best.share >= 0.5 * ENOUGH or best.share * best.flow[..., 0].size > 40 * len(matches):
            return best
        forward, covisible = _bare_matches(matches, *size)
        backward, covisible_back = _bare_matches(swapped, *size)
        ones = np.ones_like(covisible)
        return Correspondence(forward, covisible, ones, backward, covisible_back, ones, sparse=True)


def _dis() -> cv2.DISOpticalFlow:
    """DIS between MEDIUM and FAST: as accurate as MEDIUM on the shared clips, a quarter cheaper."""
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    dis.setVariationalRefinementIterations(3)
    return dis


def _checked(
    forward: Float32, backward: Float32, textures: tuple[Float32, Float32]
) -> Correspondence:
    return Correspondence(
        forward,
        agreement(forward, backward),
        textures[0],
        backward,
        agreement(backward, forward),
        textures[1],
    )


def _trust(correspondence: Correspondence) -> float:
    return float((correspondence.covisibility * correspondence.texture).mean())


def _flaw(gray: UInt8, texture: Float32) -> str:
    """`textureless` when hardly a pixel can be localised, `blur` when there is contrast but no
    detail."""
    if float(np.mean(texture > 0.3)) < 0.03:
        return "textureless"
    (_, detail), (_, contrast) = (
        cv2.meanStdDev(cv2.Laplacian(gray, cv2.CV_32F)),
        cv2.meanStdDev(gray),
    )
    return "blur" if float(detail[0, 0]) ** 2 < 0.012 * float(contrast[0, 0]) ** 2 else ""


def _bare_matches(matches: Float32, width: int, height: int) -> tuple[Float32, Float32]:
    flow, covisible = (
        np.zeros((height, width, 2), dtype=np.float32),
        np.zeros((height, width), dtype=np.float32),
    )
    columns = np.clip(np.rint(matches[:, 0]).astype(int), 0, width - 1)
    rows = np.clip(np.rint(matches[:, 1]).astype(int), 0, height - 1)
    flow[rows, columns] = matches[:, 2:] - matches[:, :2]
    covisible[rows, columns] = 1.0
    return flow, covisible
