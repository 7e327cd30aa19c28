"""What a number was measured on: machine, versions, and which code, so that a table says where it
comes from."""

from __future__ import annotations

import hashlib
import os
import platform
import subprocess
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from flow3r_ros.paths import PACKAGE


def describe_machine() -> dict[str, Any]:
    """CPU, cores this process may use, memory in GiB, Python and the versions that decide speed;
    `gpu` where a driver tells."""
    return {
        "cpu": _cpu_name(),
        "cores": len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count(),
        "memory_gib": round(_memory_bytes() / 2**30, 1),
        "gpu": _gpu_name(),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **{name: _version(name) for name in ("torch", "numpy", "opencv-python-headless")},
    }


def commit() -> str:
    """Short commit of the working tree, with `+` when it was changed; empty outside git."""
    head = _ask("git", "-C", str(PACKAGE), "rev-parse", "--short=10", "HEAD")
    changed = _ask(
        "git",
        "-C",
        str(PACKAGE),
        "status",
        "--porcelain",
        "--untracked-files=no",
        "--",
        str(PACKAGE),
    )
    return f"{head}+" if head and changed else head


def fingerprint(parts: Sequence[str], extra: Sequence[Path] = (), text: str = "") -> str:
    """Hash of the sources under the named parts of the package, of extra files and of a text: the
    same code gives the same word."""
    digest = hashlib.sha256(text.encode())
    for part in parts:
        root = PACKAGE / part
        for path in sorted(root.rglob("*.py")) if root.is_dir() else [root]:
            digest.update(path.relative_to(PACKAGE).as_posix().encode())
            digest.update(path.read_bytes())
    for path in extra:
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _memory_bytes() -> int:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return 0


def _gpu_name() -> str:
    return _ask("nvidia-smi", "--query-gpu=name", "--format=csv,noheader") or "none"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "not installed"


def _ask(*command: str) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
