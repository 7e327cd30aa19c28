"""Weights and pictures that are the same on every machine and in every torch (numpy's old generator
is frozen), so that what the authors' own code answered with them can be written down."""

from __future__ import annotations

import numpy as np
import torch


def formula_weights(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights of these shapes: normal, their size follows the fan-in; norms near one."""
    weights, draw = {}, np.random.RandomState(5)
    for name in sorted(shapes):
        shape = shapes[name]
        if name.endswith("num_batches_tracked"):
            weights[name] = torch.zeros(shape, dtype=torch.long)
            continue
        count = int(np.prod(shape))
        wave = draw.standard_normal(count)
        if name.endswith("running_var") or (len(shape) == 1 and name.endswith("weight")):
            values = 1 + 0.1 * np.tanh(wave)
        elif len(shape) > 1:
            values = wave * np.sqrt(1 / np.prod(shape[1:]))
            values *= 0.1 if name == "flow_head.2.weight" else 1
        else:
            values = 0.1 * wave
        weights[name] = torch.from_numpy(values.reshape(shape).astype(np.float32))
    # one norm under two names
    for name in shapes:
        if ".downsample.1." in name:
            weights[name] = weights[name.replace(".downsample.1.", ".bn3.")]
    return weights


def formula_pictures(height: int = 128, width: int = 160) -> torch.Tensor:
    """Two pictures `[2, 3, H, W]` in [-1, 1]: waves, and the same 3 pixels to the left."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    both = [
        np.stack([np.sin(0.3 * (x + d) + c) * np.cos(0.2 * y - c) for c in range(3)])
        for d in (0, 3)
    ]
    return torch.from_numpy(np.stack(both).astype(np.float32))
