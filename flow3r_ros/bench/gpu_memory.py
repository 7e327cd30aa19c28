"""What the official network needs on a card, computed without one: weights, peak of live tensors
and operations of the engine's step, at several windows and resolutions.

The step (one new frame encoded, a window decoded, heads for the three frames that the engine asks
for) runs on fake tensors, which have shapes but no memory; storages are counted from birth to
death. `python -m flow3r_ros.bench.gpu_memory` prints the table of docs/models.md.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop_count

from flow3r_ros.network.config import Flow3rConfig, preset
from flow3r_ros.network.model import Flow3r

SIZES = ((574, 434), (518, 392), (364, 280))
CASES = tuple((window, size) for size in SIZES for window in (4, 8, 16))
"""window, (width, height)"""
WANTED = 3
"""frames whose heads run: the newest and the two that join the window to the odometry"""
CONTEXT_GB = 0.8
"""what a CUDA context, cuBLAS and the allocator's rounding take beside the tensors: an estimate,
not counted"""


def _attention_flops(query: Any, key: Any, value: Any, *_: Any, **__: Any) -> int:
    return int(sdpa_flop_count(query, key, value))  # type: ignore[no-untyped-call]


_CPU_ATTENTION = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _attention_flops}
"""the counter knows the fused attention of CUDA, not that of the CPU that fake tensors pretend to
be on"""


@dataclass(frozen=True)
class Need:
    """Bytes of the weights, most bytes alive during a step (weights included), operations of it."""

    weights: int
    peak: int
    flops: int


class Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Bytes of the storages that operators made and that are still alive, and the most there were;
    those of `given` do not count."""

    def __init__(self, given: Iterable[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._known = {tensor.untyped_storage()._cdata for tensor in given}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run the operator and count what it made."""
        out = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(out):
            if isinstance(leaf, Tensor):
                self._count(leaf)
        self.peak = max(self.peak, self.now)
        return out

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = storage.nbytes()
        self._known.add(key)
        self.now += size
        weakref.finalize(storage, self._forget, key, size)

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.now -= size


def need(window: int, size: tuple[int, int], config: Flow3rConfig | None = None) -> Need:
    """What a network of `config` (default: the official one) needs in bfloat16 for a step of
    `window` frames of `size` (width, height)."""
    width, height = size
    with torch.device("meta"):
        model = Flow3r(config or preset("large")).eval()
    model.lower_precision(torch.bfloat16)
    shapes = model.state_dict()
    with FakeTensorMode(), torch.no_grad():
        fakes = {name: torch.empty(meta.shape, dtype=meta.dtype) for name, meta in shapes.items()}
        model.load_state_dict(fakes, assign=True)
        weights = sum(
            tensor.numel() * tensor.element_size() for tensor in model.state_dict().values()
        )
        patch = model.config.encoder.patch_size
        tokens = (height // patch) * (width // patch)
        cached = torch.zeros(1, window - 1, tokens, model.config.encoder.width)
        image = torch.zeros(1, 3, height, width)

        def step() -> None:
            newest = model.encode_images(image)[None]
            wanted = torch.arange(max(0, window - WANTED), window)
            model.decode(torch.cat([cached, newest], dim=1), (height, width), wanted=wanted)

        alive = Alive([*model.parameters(), *model.buffers(), cached, image])
        with alive:
            step()
        counter = FlopCounterMode(display=False, custom_mapping=_CPU_ATTENTION)
        with counter:
            step()
    held = cached.numel() * cached.element_size()
    return Need(weights, weights + held + alive.peak, counter.get_total_flops())


def table() -> str:
    """The Markdown table of all cases."""
    lines = [
        "| input | window | weights | tensors at most | with the context | TFLOP a step |",
        "|---|---|---|---|---|---|",
    ]
    for window, (width, height) in CASES:
        one = need(window, (width, height))
        gigabytes = (one.weights / 1e9, one.peak / 1e9, one.peak / 1e9 + CONTEXT_GB)
        cells = [f"{width}x{height}", str(window), *(f"{value:.1f} GB" for value in gigabytes)]
        lines.append("| " + " | ".join([*cells, f"{one.flops / 1e12:.1f}"]) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
