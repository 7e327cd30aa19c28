"""Where the network runs and what it computes in: properties of the machine, never of a timing."""

from __future__ import annotations

import os
from pathlib import Path

import torch

from flow3r_ros.errors import ModelError


def choose_device(name: str) -> torch.device:
    """`auto` takes the first CUDA device where there is one. Raises ModelError when the device does
    not exist."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    device = torch.device(name)
    if device.type == "cuda" and (
        not torch.cuda.is_available() or (device.index or 0) >= torch.cuda.device_count()
    ):
        raise ModelError(
            f"device {name}: not available to this PyTorch",
            "set model.device to cpu or auto, or run flow3r doctor",
        )
    return device


def choose_dtype(name: str, device: torch.device) -> torch.dtype:
    """`auto` is bfloat16 where the hardware has matrix units for it (a property of the machine, not
    a timing), else float32.

    AVX512-BF16 alone is not enough: on the Xeon cores this was measured on, float32 multiplied 1.5
    to 2.2 times faster at every size; on EPYC cores with it, bfloat16 did, 2.1 times.
    """
    if name != "auto":
        return torch.float32 if name == "float32" else torch.bfloat16
    native = (
        torch.cuda.get_device_capability(device) >= (8, 0)
        if device.type == "cuda"
        else _cpu_multiplies_bfloat16()
    )
    return torch.bfloat16 if native else torch.float32


def _cpu_multiplies_bfloat16() -> bool:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith("flags")), "").split()
    vendor = next((line.split()[-1] for line in lines if line.startswith("vendor_id")), "")
    return "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")


def usable_cores() -> int:
    """Cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
