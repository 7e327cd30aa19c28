"""Makes the inputs of `../shared/cases` and runs `flow3r` on them, in this process."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flow3r_ros.cli.main import main

BASE_NS, STEP_NS = 1_700_000_000_000_000_000, 100_000_000


@dataclass(frozen=True)
class Outcome:
    """What one command did: exit code, stdout, stderr, and the folder or bag it wrote."""

    code: int
    out: str
    err: str
    output: Path

    @property
    def refusal(self) -> str:
        """The one line of a refusal, else why it is none."""
        lines = [line for line in self.err.splitlines() if line.startswith("flow3r:")]
        if "Traceback" in self.err:
            return "TRACEBACK"
        return lines[-1] if self.code == 1 and lines else ""

    @property
    def json(self) -> dict[str, Any]:
        """The JSON object on stdout; empty after a refusal."""
        return dict(json.loads(self.out)) if self.code == 0 and self.out.startswith("{") else {}


def flow3r(*arguments: str | Path, output: Path = Path()) -> Outcome:
    """One command, its streams caught; a traceback that reaches the top is marked in `err`."""
    out, err = io.StringIO(), io.StringIO()
    before, sys.argv = sys.argv, ["flow3r", *map(str, arguments)]
    code: Any = 0
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code
    except BaseException as error:
        code = 1
        err.write(f"\nTraceback: {type(error).__name__}: {error}")
    finally:
        sys.argv = before
    return Outcome(int(code or 0), out.getvalue(), err.getvalue(), output)


class Workshop:
    """Inputs of the makers in `cases` below `folder`, each made once, and outputs beside them."""

    def __init__(self, cases: Path, folder: Path) -> None:
        self.cases, self.folder = cases.resolve(), folder
        self._outputs = 0
        self._made: dict[str, str] = {}

    def made(self, maker: str) -> Path:
        """Folder of what `make_<maker>.py` makes. Raises RuntimeError with its last line when it
        fails, or needs an ffmpeg and there is none."""
        target = self.folder / "in" / maker
        if maker not in self._made:
            self._made[maker] = self._make(maker, target)
        if self._made[maker]:
            raise RuntimeError(self._made[maker])
        return target

    def _make(self, maker: str, target: Path) -> str:
        target.mkdir(parents=True, exist_ok=True)
        ffmpeg = [found] if maker == "videos" and (found := find_ffmpeg()) else []
        if maker == "videos" and not ffmpeg:
            return "no ffmpeg: put one on PATH, or pip install imageio-ffmpeg"
        command = [sys.executable, f"make_{maker}.py", str(target.resolve()), *ffmpeg]
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
        done = subprocess.run(
            command, cwd=self.cases, env=environment, capture_output=True, text=True, check=False
        )
        return done.stderr.strip().splitlines()[-1] if done.returncode else ""

    def output(self) -> Path:
        """A name that nothing has yet."""
        self._outputs += 1
        (self.folder / "out").mkdir(exist_ok=True)
        return self.folder / "out" / str(self._outputs)

    def run(self, source: Path, *options: str | Path) -> Outcome:
        """`flow3r run SOURCE --output ... --json`."""
        output = self.output()
        return flow3r("run", source, "--output", output, "--json", *options, output=output)

    def replay(self, bag: Path, *options: str | Path) -> Outcome:
        """`flow3r replay BAG --output ... --json`."""
        output = self.output()
        return flow3r("replay", bag, "--output", output, "--json", *options, output=output)

    def truth(self, start_ns: int = BASE_NS, step_ns: int = STEP_NS, frames: int = 24) -> Path:
        """The way of `scene.poses` as a TUM file; frame i at `start_ns + i step_ns`."""
        path = self.folder / f"truth_{start_ns}_{step_ns}.tum"
        lines = []
        for i in range(frames):
            ns, half = start_ns + i * step_ns, 0.006 * i
            x, y, z = 0.05 * i, 0.02 * np.sin(0.5 * i), 0.03 * i
            turn = f"0 {np.sin(half):.12f} 0 {np.cos(half):.12f}"
            lines.append(f"{ns // 10**9}.{ns % 10**9:09d} {x:.9f} {y:.9f} {z:.9f} {turn}\n")
        path.write_text("".join(lines))
        return path


def find_ffmpeg() -> str | None:
    """An ffmpeg on PATH, or that of the imageio-ffmpeg package."""
    found = shutil.which("ffmpeg")
    if found is None and importlib.util.find_spec("imageio_ffmpeg") is not None:
        import imageio_ffmpeg

        found = str(imageio_ffmpeg.get_ffmpeg_exe())
    return found
