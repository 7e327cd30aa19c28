"""`flow3r bench --suite label|train`: labelling beside a plain OpenCV loop, Ray with two workers
beside one, the loader beside the step, memory with a long index beside a short one."""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from flow3r_ros.bench.memory import memory_row, peak_mb
from flow3r_ros.geometry.camera import default_camera
from flow3r_ros.geometry.correspondence import matching_size
from flow3r_ros.paths import write_atomically
from flow3r_ros.training.clip_sources import CachedClips
from flow3r_ros.training.dataset import Mixture, window_evidence
from flow3r_ros.training.export import initial_network
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings, LabelUnit
from flow3r_ros.training.labels.clip_store import clip_path, write_clip
from flow3r_ros.training.labels.clips import Clip
from flow3r_ros.training.labels.ray_engine import RayCluster
from flow3r_ros.training.labels.teachers import DisTeacher
from flow3r_ros.training.labels.worker import LabelTask, Order, label_unit
from flow3r_ros.training.loader import Loader
from flow3r_ros.training.objective import objective
from flow3r_ros.training.sample import Batch, collate
from flow3r_ros.training.scenes.renderer import render_clip
from flow3r_ros.training.shards import content_key
from flow3r_ros.training.train_config import LossWeights, TrainSettings
from flow3r_ros.types import UInt8

WIDTH = 336
FRAMES = 6
LONG_INDEX = 100_000
"""frames of the long index"""


def bench_label(thorough: bool = False) -> dict[str, Any]:
    """Milliseconds a pair of 640x480 frames on one core, ours and a plain OpenCV loop in turns; Ray
    with 1 and 2 workers."""
    cv2.setNumThreads(1)
    rgb = render_clip(1, FRAMES, 640, 480, layout="room", motion="handheld", speed=0.05).rgb
    settings = LabelSettings.model_validate(
        {"strides": (1,), "clips": {"width": 640, "frames": FRAMES}, "pairs_per_shard": 5}
    )
    with tempfile.TemporaryDirectory() as folder:
        unit, clip = _one_clip(Path(folder), rgb, settings)
        ours, plain = _in_turns(
            lambda: label_unit(clip, unit.pairs, settings.model_dump_json()),
            lambda: _plain_loop(rgb, unit.pairs),
        )
        count = len(unit.pairs)
        rows = [
            _row(
                "label a pair, 640x480, one core",
                ours / count,
                "two OpenCV DIS calls in a loop",
                plain / count,
            )
        ]
        rows[0]["note"] = (
            "ours decodes JPEG, matches once for both directions, checks them against "
            "each other and packs the shard"
        )
        facts = {
            "pairs_per_s_core": 1000 * count / ours,
            "pairs_per_s_core_opencv": 1000 * count / plain,
        }
        one, two = (_ray_rate(Path(folder), unit, settings, workers) for workers in (1, 2))
        rows.append(_row("label a pair on Ray, 2 workers", 1000 / two, "1 worker", 1000 / one))
    return {"rows": rows, **facts, "ray_speedup_2_workers": two / one}


def _one_clip(folder: Path, rgb: UInt8, settings: LabelSettings) -> tuple[LabelUnit, bytes]:
    height, width = rgb.shape[1:3]
    clip = Clip(
        content_key("bench"),
        "bench",
        rgb,
        np.arange(len(rgb), dtype=np.int64),
        default_camera(width, height),
    )
    cache = LabelCache(folder, settings, DisTeacher().identity)
    unit = cache.units(clip.key, len(clip))[0]
    write_clip(cache.clip_path(unit), clip)
    _list_clips(folder, {clip.key: len(clip)})
    return unit, cache.clip_path(unit).read_bytes()


def _list_clips(folder: Path, clips: dict[str, int]) -> None:
    listed = {"source": "bench", "content": "", "clips": clips, "counts": {}}
    write_atomically(folder / "sources" / "bench.json", json.dumps(listed).encode())


def _plain_loop(rgb: UInt8, pairs: tuple[tuple[int, int], ...]) -> None:
    """What a script would do for every pair: gray, shrink, DIS there and back."""
    for i, j in pairs:
        _plain_pair(rgb[i], rgb[j])


def _plain_pair(a: UInt8, b: UInt8) -> None:
    size = matching_size(a.shape[1], a.shape[0], WIDTH)
    grays = [
        cv2.resize(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
        for image in (a, b)
    ]
    dis = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)
    start = np.zeros((size[1], size[0], 2), np.float32)
    dis.calc(grays[0], grays[1], start.copy())
    dis.calc(grays[1], grays[0], start.copy())


def _ray_rate(
    folder: Path, unit: LabelUnit, settings: LabelSettings, workers: int, clips: int = 24
) -> float:
    """Pairs a second once every worker has delivered its first clip: one clip under many names."""
    cache = LabelCache.existing(folder)
    order, pairs = Order(str(folder), settings.model_dump_json()), 2 * (FRAMES - 1)
    done: list[float] = []
    with RayCluster(order, workers, None, 0.0) as cluster:
        for number in range(clips):
            key = content_key("ray", workers, number)
            _link(cache, unit, key)
            cluster.submit(LabelTask("bench", key, FRAMES))
        while len(done) < clips:
            done += [time.perf_counter() for _ in cluster.finished()]
    warm = 2 * workers
    return (clips - warm) * pairs / (done[-1] - done[warm - 1])


def bench_train(thorough: bool = False) -> dict[str, Any]:
    """Milliseconds a training step of the nano network on cached labels, the share spent waiting
    for data, samples a second; memory."""
    settings = TrainSettings(clips_per_step=2, pairs_per_clip=2, imagenet=False)
    rgb = render_clip(1, 12, 336, 252, layout="room", motion="handheld", speed=0.05).rgb
    labels = LabelSettings.model_validate({"strides": (1, 2)})
    network = initial_network(settings)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4)
    with tempfile.TemporaryDirectory() as folder:
        _one_clip(Path(folder), rgb, labels)
        mixture = Mixture(
            [CachedClips(Path(folder))], frames=(4, 4), pairs=2, evidence=window_evidence()
        )
        mixture.batch(0, 1)

        def make(step: int) -> Batch:
            return collate(mixture.batch(step, settings.clips_per_step))

        with Loader(make) as loader:
            flops = _count(network, loader(0))
            taken, waited = [], []
            for step in range(1, 7):
                began = time.perf_counter()
                batch = loader(step)
                waited.append(loader.wait_s)
                _train_step(network, optimizer, batch)
                taken.append(time.perf_counter() - began)
        made = _milliseconds(lambda: make(9))
    step_ms = 1000 * float(np.median(taken))
    rows = [
        _row(
            "training step, nano, 2 clips of 4 frames at 168x126",
            step_ms,
            "making its batch on one core",
            made,
        ),
        _memory_row(),
    ]
    return {
        "rows": rows,
        "wait_share": float(np.sum(waited) / np.sum(taken)),
        "samples_per_s": 1000 * settings.clips_per_step / step_ms,
        "matmul_peak_share": flops / (step_ms / 1000) / _matmul_peak(),
        "threads": torch.get_num_threads(),
    }


def _memory_row() -> dict[str, Any]:
    """Peak memory of drawing samples from an index of many clips, and of one."""
    with tempfile.TemporaryDirectory() as folder:
        short, long = (
            _linked_index(Path(folder) / "short", FRAMES),
            _linked_index(Path(folder) / "long", LONG_INDEX),
        )
        peaks = [peak_mb(_draw, index) for index in (short, long)]
    name, note = (
        f"peak memory, samples from an index of {LONG_INDEX} frames",
        "one clip and its labels under as many names as it takes",
    )
    return memory_row(name, peaks[1], "an index of one clip", peaks[0], note)


def _linked_index(folder: Path, frames: int) -> Path:
    """A label cache of so many frames: one small clip and its labels, linked under every other
    name."""
    settings = LabelSettings.model_validate(
        {"strides": (1,), "width": 84, "clips": {"width": 112, "frames": FRAMES}}
    )
    rgb = render_clip(1, FRAMES, 112, 84, layout="room", motion="handheld", speed=0.05).rgb
    unit, data = _one_clip(folder, rgb, settings)
    cache = LabelCache.existing(folder)
    cache.store(unit, label_unit(data, unit.pairs, settings.model_dump_json()))
    clips = {
        unit.clip: FRAMES,
        **{content_key("bench", number): FRAMES for number in range(1, frames // FRAMES)},
    }
    for key in clips.keys() - {unit.clip}:
        _link(cache, unit, key)
        there = Path(str(cache.path(cache.units(key, FRAMES)[0])))
        there.parent.mkdir(parents=True, exist_ok=True)
        there.hardlink_to(str(cache.path(unit)))
    _list_clips(folder, clips)
    return folder


def _link(cache: LabelCache, unit: LabelUnit, key: str) -> None:
    """The clip of a unit under another name."""
    there = Path(str(clip_path(cache.folder, key)))
    there.parent.mkdir(parents=True, exist_ok=True)
    there.hardlink_to(str(cache.clip_path(unit)))


def _draw(folder: Path, samples: int = 500) -> None:
    mixture = Mixture([CachedClips(folder)], frames=(4, 4), grids=((56, 42),), pairs=2)
    for number in range(samples):
        mixture.batch(number, 1)


def _train_step(network: torch.nn.Module, optimizer: torch.optim.Optimizer, batch: Batch) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        outputs = network(batch.images, batch.pairs, batch.evidence)
        loss, _ = objective(outputs, batch, LossWeights())
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)


def _count(network: torch.nn.Module, batch: Batch) -> float:
    """Floating-point operations of a forward and backward."""
    with FlopCounterMode(display=False) as counter:
        loss, _ = objective(
            network(batch.images, batch.pairs, batch.evidence), batch, LossWeights()
        )
        loss.backward()  # type: ignore[no-untyped-call]
    network.zero_grad(set_to_none=True)
    return float(counter.get_total_flops())


def _matmul_peak(size: int = 1024) -> float:
    """Operations a second of a bfloat16 matrix product."""
    a = torch.randn(size, size, dtype=torch.bfloat16)
    return 2.0 * size**3 / (_milliseconds(lambda: a @ a) / 1000)


def _in_turns(
    ours: Callable[[], object], other: Callable[[], object], turns: int = 5
) -> tuple[float, float]:
    """Median milliseconds of both, measured alternately so that a busy machine hurts both alike."""
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(turns):
        for taken, work in zip(times, (ours, other), strict=True):
            taken.append(_milliseconds(work, 1))
    return float(np.median(times[0][1:])), float(np.median(times[1][1:]))


def _milliseconds(work: Callable[[], object], repeats: int = 3) -> float:
    taken = []
    for _ in range(repeats):
        began = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - began))
    return float(np.median(taken))


def _row(name: str, median: float, baseline: str, against: float) -> dict[str, Any]:
    return {
        "name": name,
        "median": median,
        "unit": "ms",
        "baseline": baseline,
        "baseline_median": against,
        "ratio": against / median,
    }
