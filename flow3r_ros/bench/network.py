"""`flow3r bench --suite network`: what the encoder cache and the wanted frames save, and how near
the machine's matmul peak we are.

Everything runs on the weights of the bundled small model, in turns, so that a busy machine hurts
every case alike.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from flow3r_ros.bench.network_gpu import NOT_MEASURED, bench_gpu
from flow3r_ros.config import ModelSettings
from flow3r_ros.network.outputs import EvidenceInput
from flow3r_ros.network.runner import Runner, open_predictor
from flow3r_ros.types import Evidence, Frame, Window

WIDTH, HEIGHT = 640, 480
Millis = list[float]


def bench_network(
    model: str = "flow3r_nano", device: str = "cpu", repeats: int = 12, thorough: bool = False
) -> dict[str, Any]:
    """Rows (median, p10, p90 in ms, ratio to the baseline) of streaming steps beside plain forwards
    of the same weights; on a machine with a GPU also those of the official size (`bench_gpu`).

    Raises ModelError when the model is not there.
    """
    runner = open_predictor(ModelSettings(name=model, device=device))
    plain8, plain4 = _plain(runner, 8), _plain(runner, 4)
    cases = {
        "plain 8": plain8,
        "stream 8": _streaming(runner, 8, wanted=1),
        "stream 8 shared": _streaming(runner, 8, wanted=3),
        "plain 4": plain4,
        "stream 4 shared": _streaming(runner, 4, wanted=3),
        "encode": lambda: runner.prepare(_frame(next(_ids))),
    }
    times = _in_turns(cases, repeats)
    work = {name: _flops(cases[name]) for name in ("plain 8", "stream 8")}
    peak = _matmul_peak(runner)
    gpu = (
        bench_gpu(torch.device("cuda"))
        if torch.cuda.is_available()
        else {"rows": [], "gpu": NOT_MEASURED}
    )
    return {
        "rows": [
            *gpu.pop("rows"),
            _row(
                "streaming step, window 8, newest frame wanted",
                times["stream 8"],
                "plain forward, 8 frames",
                times["plain 8"],
            ),
            _row(
                "streaming step, window 8, 3 frames wanted",
                times["stream 8 shared"],
                "plain forward, 8 frames",
                times["plain 8"],
            ),
            _row(
                "streaming step, window 4, 3 frames wanted",
                times["stream 4 shared"],
                "plain forward, 4 frames",
                times["plain 4"],
            ),
            _row("encoding one frame (resize and encoder)", times["encode"]),
        ],
        "input": "x".join(str(side) for side in runner.input_size(WIDTH, HEIGHT)),
        "device": str(runner.device),
        "arithmetic": str(runner.arithmetic),
        "threads": torch.get_num_threads(),
        "matmul_peak_gflops": peak / 1e9,
        "plain_forward_share_of_peak": work["plain 8"]
        / (float(np.median(times["plain 8"])) / 1000)
        / peak,
        "streaming_step_share_of_peak": work["stream 8"]
        / (float(np.median(times["stream 8"])) / 1000)
        / peak,
        "plain_forward_gflop": work["plain 8"] / 1e9,
        "streaming_step_gflop": work["stream 8"] / 1e9,
        **gpu,
    }


_ids = count()


def _frame(id_: int) -> Frame:
    rgb = np.random.default_rng(id_).integers(
        0, 255, (HEIGHT // 16, WIDTH // 16, 3), dtype=np.uint8
    )
    return Frame(id=id_, stamp_ns=id_, rgb=np.kron(rgb, np.ones((16, 16, 1), np.uint8)))


def _evidence(runner: Runner, frames: int) -> Evidence | None:
    if not runner.uses_evidence:
        return None
    width, height = runner.input_size(WIDTH, HEIGHT)
    return Evidence(
        np.zeros((frames, 10, height // 2, width // 2), np.float32),
        np.tile(np.eye(4), (frames, 1, 1)),
    )


def _plain(runner: Runner, frames: int) -> Callable[[], object]:
    """The forward a user of the bare network would write: every frame encoded, every head run,
    images already resized."""
    width, height = runner.input_size(WIDTH, HEIGHT)
    images = torch.rand(1, frames, 3, height, width, device=runner.device)
    given = _evidence(runner, frames)
    tensors = None
    if given is not None:
        planes, poses = torch.from_numpy(given.planes), torch.from_numpy(given.poses).float()
        tensors = EvidenceInput(planes[None].to(runner.device), poses[None].to(runner.device))

    def forward() -> object:
        with torch.inference_mode():
            tokens = runner.model.encode_images(images[0])[None]
            out = runner.model.decode(tokens, (height, width), None, tensors)
            return out["points"].cpu()

    return forward


def _streaming(runner: Runner, frames: int, wanted: int) -> Callable[[], object]:
    """One new 640x480 frame a step, through the Predictor; the others are cached."""
    given = _evidence(runner, frames)
    recent = [_frame(next(_ids)) for _ in range(frames)]

    def step() -> object:
        recent.append(_frame(next(_ids)))
        recent.pop(0)
        start = perf_counter()
        runner.predict(Window(tuple(recent), tuple(frame.id for frame in recent[-wanted:]), given))
        return 1000 * (perf_counter() - start)

    return step


def _in_turns(
    cases: Mapping[str, Callable[[], object]], repeats: int, warmup: int = 2
) -> dict[str, Millis]:
    """Milliseconds of every case; a case may return its own time, which then leaves out its
    preparation."""
    taken: dict[str, Millis] = {name: [] for name in cases}
    for turn in range(warmup + repeats):
        for name, case in cases.items():
            start = perf_counter()
            own = case()
            if turn >= warmup:
                taken[name].append(
                    own if isinstance(own, float) else 1000 * (perf_counter() - start)
                )
    return taken


def _row(
    name: str, times: Millis, baseline: str = "", against: Millis | None = None
) -> dict[str, Any]:
    p10, median, p90 = (float(value) for value in np.percentile(times, [10, 50, 90]))
    row: dict[str, Any] = {"name": name, "median": median, "p10": p10, "p90": p90, "unit": "ms"}
    if against is not None:
        beside = float(np.median(against))
        row |= {"baseline": baseline, "baseline_median": beside, "ratio": beside / median}
    return row


def _flops(case: Callable[[], object]) -> float:
    """Floating-point operations of matmuls, convolutions and attention in one call."""
    counter = FlopCounterMode(display=False)
    with counter:
        case()
    return float(counter.get_total_flops())


def _matmul_peak(runner: Runner, size: int = 1024, repeats: int = 8) -> float:
    """Operations a second of the best of some square matmuls in the runner's arithmetic."""
    dtype = torch.float32 if runner.arithmetic is None else runner.arithmetic
    a = torch.randn(size, size, device=runner.device, dtype=dtype)
    best = float("inf")
    for _ in range(repeats):
        start = perf_counter()
        a @ a
        if runner.device.type == "cuda":
            torch.cuda.synchronize(runner.device)
        best = min(best, perf_counter() - start)
    return 2 * size**3 / best
