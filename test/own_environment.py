"""Programs that run in `.venv-lerobot` (scripts/lerobot.sh), where packages are whose pins do not
meet ours: lerobot, torchvision."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / ".venv-lerobot"


def run_there(module: str, *arguments: str | Path, home: Path) -> None:
    """Run a module of the tests there, offline; skip the test where it was not set up."""
    import pytest

    if not (VENV / ".flow3r_setup").exists():
        pytest.skip("no .venv-lerobot: scripts/lerobot.sh makes it")
    libraries = [VENV / "ffmpeg", *VENV.glob("lib/python3*/site-packages/av.libs")]
    environment = {
        **os.environ,
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(home / "hub"),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, libraries)),
    }
    command = [str(VENV / "bin/python"), "-m", module, *map(str, arguments)]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]


def with_torchvision() -> Any:
    """torchvision, there: PyPI's is built for CUDA, and without it its operators, which importing
    it asks for, are not there. Nothing here calls them. Keep the answer while it is used."""
    import torch

    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return operators
