"""What attacks are made of: folders to keep, downloads, programs that are killed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from test.network.factories import tiny_config, tiny_model

LIMIT_S = 120.0
"""generous: how long a condition may take to come true on a busy machine"""

ROOT = Path(__file__).resolve().parents[2]


def contents(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, hidden ones included."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def download(folder: Path, name: str = "tiny") -> Path:
    """A weights file with a `config.json` beside it, as it comes from somewhere."""
    folder.mkdir()
    save_file(tiny_model().state_dict(), folder / "model.safetensors")
    tree = {**json.loads(tiny_config().model_dump_json()), "name": name}
    (folder / "config.json").write_text(json.dumps(tree))
    return folder / "model.safetensors"


def victim(folder: Path) -> Path:
    """Somebody's work."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "thesis.txt").write_text("years")
    return folder


def wait_until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < end, what
        time.sleep(0.05)


def started(tmp_path: Path, code: str, *arguments: Path) -> tuple[subprocess.Popen[str], str]:
    """A process that runs `code`, and the line it prints when it is ready."""
    script = tmp_path / "script.py"
    script.write_text(code)
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), *map(str, arguments)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None
    return process, process.stdout.readline().strip()
