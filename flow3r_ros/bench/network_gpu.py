"""Suite `network` on a GPU: the official-size network with random weights, a streaming step beside
a forward of the whole window.

Device time is that between CUDA events. Operations and bytes are counted operator by operator (what
each reads and writes, so fused kernels and caches may do with less) and set against what this card
reaches in a large matrix product and in a large copy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import count
from time import perf_counter
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from flow3r_ros.network.catalog import InputSpec, Manifest
from flow3r_ros.network.config import Flow3rConfig, preset
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.runner import Runner
from flow3r_ros.types import Frame, Window

WINDOW = 8
SIZE = (518, 392)
"""width and height"""
NOT_MEASURED = (
    "not measured yet (no GPU in this machine): official-size network, random weights, "
    "bfloat16, window 8, 518x392: streaming step beside "
    "full-window forward (CUDA events), p50 and p95 from image to numpy, FLOPs and "
    "bytes against the card's own ceilings, peak memory"
)
Case = Callable[[], object]
_ids = count()


def bench_gpu(
    device: torch.device,
    config: Flow3rConfig | None = None,
    size: tuple[int, int] = SIZE,
    repeats: int = 20,
    ceiling: int = 8192,
) -> dict[str, Any]:
    """Rows and facts of the network of `config` (default: the official size) at `size` (width,
    height).

    `ceiling` is the side of the matrices that measure the card's peak. On a CPU the clock is the
    wall's, and memory is not told.
    """
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    with torch.device(device):
        model = Flow3r(config or preset("large")).eval()
    if dtype != torch.float32:
        model.lower_precision(dtype)
    name = (
        f"{sum(parameter.numel() for parameter in model.parameters()) / 1e6:.0f} M "
        f"parameters, window {WINDOW}, {size[0]}x{size[1]}"
    )
    cases = _device_cases(model, device, size)
    times = _in_turns(cases, device, repeats)
    whole = _end_to_end(model, name, size, repeats)
    peak, bandwidth = _matmul_peak(device, dtype, ceiling), _copy_bandwidth(device, ceiling)
    rows = [
        _row(
            f"streaming step, {name}",
            times["step"],
            f"forward of all {WINDOW} frames",
            times["full"],
        ),
        _row(
            "640x480 image in, numpy out, frames cached",
            whole["cached"],
            "the same, every frame encoded",
            whole["uncached"],
        ),
    ]
    facts = {
        f"gpu_{case}": _against_ceilings(cases[case], times[case], peak, bandwidth)
        | _memory(cases[case], device)
        for case in cases
    }
    return {
        "rows": rows,
        "gpu_matmul_peak_tflops": peak / 1e12,
        "gpu_copy_gb_s": bandwidth / 1e9,
        "gpu_arithmetic": str(dtype),
        **facts,
    }


def _device_cases(model: Flow3r, device: torch.device, size: tuple[int, int]) -> dict[str, Case]:
    """All frames encoded and every head run; and one new frame encoded, heads for it alone."""
    width, height = size
    images = torch.rand(1, WINDOW, 3, height, width, device=device)
    with torch.inference_mode():
        cached = model.encode_images(images[0])[None]

    @torch.inference_mode()
    def full() -> object:
        return model(images)["points"]

    @torch.inference_mode()
    def step() -> object:
        newest = model.encode_images(images[0, -1:])[None]
        return model.decode(
            torch.cat([cached[:, 1:], newest], dim=1),
            (height, width),
            wanted=torch.tensor([WINDOW - 1], device=device),
        )["points"]

    return {"full": full, "step": step}


def _end_to_end(
    model: Flow3r, name: str, size: tuple[int, int], repeats: int
) -> dict[str, list[float]]:
    """Wall-clock milliseconds of `Runner.predict` with one new 640x480 frame a call, everything
    from resizing to numpy."""
    runner = Runner(
        model,
        Manifest(
            name=name,
            source="random weights",
            parameters=0,
            input=InputSpec(resolution=size, window=WINDOW),
        ),
    )
    recent = [_frame() for _ in range(WINDOW)]

    def predict() -> object:
        recent.append(_frame())
        recent.pop(0)
        start = perf_counter()
        runner.predict(Window(tuple(recent), (recent[-1].id,)))
        return 1000 * (perf_counter() - start)

    def uncached() -> object:
        runner.reset()
        return predict()

    return _in_turns({"cached": predict, "uncached": uncached}, torch.device("cpu"), repeats)


def _frame() -> Frame:
    number = next(_ids)
    rgb = np.random.default_rng(number).integers(0, 255, (30, 40, 3), dtype=np.uint8)
    return Frame(number, number, np.kron(rgb, np.ones((16, 16, 1), np.uint8)))


def _in_turns(
    cases: Mapping[str, Case], device: torch.device, repeats: int, warmup: int = 3
) -> dict[str, list[float]]:
    """Milliseconds of every case in turns; a case may return its own time."""
    taken: dict[str, list[float]] = {name: [] for name in cases}
    for turn in range(warmup + repeats):
        for name, case in cases.items():
            milliseconds = _milliseconds(case, device)
            if turn >= warmup:
                taken[name].append(milliseconds)
    return taken


def _milliseconds(case: Case, device: torch.device) -> float:
    if device.type != "cuda":
        start = perf_counter()
        own = case()
        return own if isinstance(own, float) else 1000 * (perf_counter() - start)
    first, last = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    first.record()
    case()
    last.record()
    torch.cuda.synchronize(device)
    return float(first.elapsed_time(last))


class Traffic(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes that operators read and write; views move none."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and add up its tensors; what is broadcast counts once."""
        out = func(*args, **(kwargs or {}))
        if not func.is_view:
            tensors = [
                leaf for leaf in tree_leaves((args, kwargs, out)) if isinstance(leaf, Tensor)
            ]
            self.bytes += sum(
                min(tensor.numel() * tensor.element_size(), tensor.untyped_storage().nbytes())
                for tensor in tensors
            )
        return out


def _against_ceilings(
    case: Case, times: list[float], peak: float, bandwidth: float
) -> dict[str, float]:
    """Work of one call and its share of the ceilings."""
    counter, traffic = FlopCounterMode(display=False), Traffic()
    with counter:
        case()
    with traffic:
        case()
    seconds = float(np.median(times)) / 1000
    return {
        "gflop": counter.get_total_flops() / 1e9,
        "gbyte": traffic.bytes / 1e9,
        "share_of_matmul_peak": counter.get_total_flops() / seconds / peak,
        "share_of_copy_bandwidth": traffic.bytes / seconds / bandwidth,
    }


def _memory(case: Case, device: torch.device) -> dict[str, float]:
    """Peak of what torch holds on the card during one call, weights included."""
    if device.type != "cuda":
        return {}
    torch.cuda.reset_peak_memory_stats(device)
    case()
    torch.cuda.synchronize(device)
    return {"peak_mb": torch.cuda.max_memory_allocated(device) / 2**20}


def _matmul_peak(device: torch.device, dtype: torch.dtype, side: int) -> float:
    """Operations a second of the best of some square matrix products."""
    a = torch.randn(side, side, device=device, dtype=dtype)
    best = min(_milliseconds(lambda: a @ a, device) for _ in range(10))
    return 2 * side**3 / (best / 1000)


def _copy_bandwidth(device: torch.device, side: int) -> float:
    """Bytes a second, read and written, of the best of some copies of `side * side` floats."""
    source = torch.rand(side, side, device=device)
    target = torch.empty_like(source)
    best = min(_milliseconds(lambda: target.copy_(source), device) for _ in range(10))
    return 2 * source.numel() * source.element_size() / (best / 1000)


def _row(name: str, times: list[float], baseline: str, against: list[float]) -> dict[str, Any]:
    p10, median, p90, p95 = (float(value) for value in np.percentile(times, [10, 50, 90, 95]))
    beside, beside_p95 = (float(value) for value in np.percentile(against, [50, 95]))
    spread = {"name": name, "median": median, "p10": p10, "p90": p90, "unit": "ms"}
    other = {"baseline": baseline, "baseline_median": beside, "ratio": beside / median}
    return {**spread, **other, "note": f"p95 {p95:.3g} ms, beside it {beside_p95:.3g} ms"}
