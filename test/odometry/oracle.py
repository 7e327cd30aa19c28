"""A predictor that knows the truth of a synthetic clip, and can be told to lie: outliers, noise,
failures, garbage.

Every window comes back in its own random Sim(3) frame, as a real network's would.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from flow3r_ros.errors import Flow3rError
from flow3r_ros.geometry.camera import rays
from flow3r_ros.geometry.lie import invert, sim3, so3_exp
from flow3r_ros.training.scenes.renderer import SceneClip, render_clip
from flow3r_ros.types import Estimate, Evidence, Float32, Frame, Prediction, Window

clip_of = lru_cache(maxsize=16)(render_clip)
"""rendered clips are shared between tests"""


def frames_of(clip: SceneClip, calibrated: bool = True, start: int = 0) -> list[Frame]:
    """The clip as the frames of a 10 Hz camera at a late epoch."""
    camera = clip.camera if calibrated else None
    return [
        Frame(i, 1_700_000_000_123_456_789 + i * 100_000_000, rgb, camera)
        for i, rgb in enumerate(clip.rgb)
    ][start:]


class Oracle:
    """Exact geometry of `clip` in a random Sim(3) per window.

    Args:
        outliers: share of pixels whose depth is multiplied by a random factor.
        depth_noise, pose_noise: relative depth noise, and noise of rotation vectors (rad) and
            centres (units).
        fails, lies: ids; a window whose newest frame is in `fails` raises, in `lies` is garbage.
    """

    name = "oracle"
    uses_evidence = False
    frames_per_window = 4

    def __init__(
        self,
        clip: SceneClip,
        outliers: float = 0.0,
        depth_noise: float = 0.0,
        pose_noise: float = 0.0,
        fails: Collection[int] = (),
        lies: Collection[int] = (),
        order: Collection[int] | None = None,
    ) -> None:
        self.clip, self.outliers, self.depth_noise, self.pose_noise = (
            clip,
            outliers,
            depth_noise,
            pose_noise,
        )
        self.fails, self.lies = fails, lies
        self.order = list(order) if order is not None else list(range(len(clip.poses)))
        self.windows = 0

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        return self.clip.camera.width, self.clip.camera.height

    def prepare(self, frame: Frame) -> None:
        pass

    def reset(self) -> None:
        self.windows = 0

    def predict(self, window: Window) -> Prediction:
        self.windows += 1
        newest = window.frames[-1].id
        random = np.random.default_rng((newest, len(window.frames), len(window.wanted)))
        if newest in self.fails:
            raise Flow3rError(f"window ending at {newest} was dropped on purpose")
        S = sim3(
            float(np.exp(random.uniform(-1, 1))),
            so3_exp(random.normal(size=3)),
            random.normal(size=3) * 5,
        )
        scale = float(np.cbrt(np.linalg.det(S[:3, :3])))
        ray = rays(self.clip.camera).astype(np.float64)
        ray = np.concatenate([ray, np.ones_like(ray[..., :1])], axis=-1)
        points, poses = [], []
        for id_ in window.wanted:
            index = self.order[id_]
            depth = self.clip.depth[index] * scale
            depth = depth * np.exp(self.depth_noise * random.normal(size=depth.shape))
            wrong = random.random(depth.shape) < self.outliers
            depth = np.where(wrong, depth * random.uniform(0.2, 5.0, depth.shape), depth)
            pose = S @ self.clip.poses[index]
            pose[:3, :3] = so3_exp(self.pose_noise * random.normal(size=3)) @ pose[:3, :3] / scale
            pose[:3, 3] += scale * self.pose_noise * random.normal(size=3)
            if newest in self.lies:
                depth = scale * random.uniform(0.1, 10.0, depth.shape)
                pose[:3, :3] = so3_exp(random.normal(size=3))
            points.append(ray * depth[..., None])
            poses.append(pose)
        shape = np.shape(points)[:3]
        return Prediction(
            window.wanted,
            np.asarray(points, dtype=np.float32),
            np.ones(shape, dtype=np.float32),
            np.asarray(poses),
        )


class EvidenceOracle(Oracle):
    """Answers as a small network does that is given the evidence and follows it: the prior's poses,
    the depth that geometry knows, and the true depth, brought onto that unit, for the rest.

    `windows_with_depth` counts the windows whose evidence held any depth.
    """

    uses_evidence = True

    def __init__(self, clip: SceneClip, **noise: Any) -> None:
        super().__init__(clip, **noise)
        self.windows_with_depth = 0

    def predict(self, window: Window) -> Prediction:
        evidence = window.evidence
        if evidence is None or window.frames[-1].id in {*self.fails, *self.lies}:
            return super().predict(window)
        self.windows += 1
        ids = [frame.id for frame in window.frames]
        random = np.random.default_rng((ids[-1], len(ids), len(window.wanted)))
        known = [self._known_depth(evidence, ids.index(id_)) for id_ in ids]
        truth = {id_: self.clip.depth[self.order[id_]] for id_ in ids}
        ratios = np.concatenate(
            [
                (depth / truth[id_])[np.isfinite(depth)]
                for id_, depth in zip(ids, known, strict=True)
            ]
        )
        self.windows_with_depth += bool(len(ratios))
        unit = float(np.median(ratios)) if len(ratios) else evidence.scale
        ray = rays(self.clip.camera)
        ray = np.concatenate([ray, np.ones_like(ray[..., :1])], axis=-1)
        points, poses = [], []
        for id_ in window.wanted:
            index = ids.index(id_)
            depth = np.where(np.isfinite(known[index]), known[index], unit * truth[id_])
            depth = depth * np.exp(self.depth_noise * random.normal(size=depth.shape))
            pose = evidence.poses[index].copy()
            pose[:3, 3] *= evidence.scale
            points.append(ray * depth[..., None])
            poses.append(pose)
        return Prediction(
            window.wanted,
            np.asarray(points, dtype=np.float32),
            np.full(np.shape(points)[:3], 0.9, dtype=np.float32),
            np.asarray(poses),
        )

    def _known_depth(self, evidence: Evidence, index: int) -> Float32:
        """Depth `[h, w]` in odometry units as the evidence tells it, NaN elsewhere."""
        logs, confidence = evidence.planes[index, 2], evidence.planes[index, 3]
        depth = np.where(confidence > 0, np.exp(logs) * evidence.scale, np.nan)
        size = (self.clip.camera.width, self.clip.camera.height)
        resized = cv2.resize(depth.astype(np.float32), size, interpolation=cv2.INTER_NEAREST)
        return np.asarray(resized, dtype=np.float32)


def relative_ate(
    estimates: list[Estimate], clip: SceneClip, order: list[int] | None = None
) -> float:
    """Largest position error after the one free scale (the first frame's), relative to the path
    length."""
    truth = np.stack([clip.poses[order[e.frame_id] if order else e.frame_id] for e in estimates])
    truth = invert(truth[0]) @ truth
    mine = np.stack([e.T_odom_cam[:3, 3] for e in estimates])
    reference = truth[:, :3, 3]
    length = float(np.linalg.norm(np.diff(reference, axis=0), axis=1).sum())
    scale = float(np.sum(mine * reference) / max(np.sum(mine * mine), 1e-30))
    return float(np.sqrt(np.mean(np.sum((scale * mine - reference) ** 2, axis=1))) / length)
