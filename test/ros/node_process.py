"""A node under test in a process of its own, in a DDS domain of its own."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO

import pytest

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 8.0
"""how many times longer than on an idle machine a test waits for what must come"""
_locks: list[IO[str]] = []


def fresh_domain() -> int:
    """A DDS domain of this test alone: its lock file is held until the test process ends."""
    for domain in range(1, 100):
        lock = (Path(tempfile.gettempdir()) / f"flow3r_test_domain_{domain}").open("w")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            lock.close()
            continue
        _locks.append(lock)
        return domain
    pytest.fail("every DDS domain is taken by another test process")


class NodeProcess:
    """A node under test in a process of its own.

    Args:
        domain: DDS domain.
        arguments: after `--ros-args`.
        program: command line before them; the wall node by default.
    """

    def __init__(
        self, domain: int, *arguments: str, program: tuple[str, ...] = ("-m", "test.ros.plane_node")
    ) -> None:
        environment = os.environ | {
            "ROS_DOMAIN_ID": str(domain),
            "OMP_NUM_THREADS": "1",
            "PYTHONUNBUFFERED": "1",
        }
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed in stop
        command = [sys.executable, *program, *(("--ros-args", *arguments) if arguments else ())]
        self.process = subprocess.Popen(
            command, cwd=ROOT, env=environment, stdout=self._log, stderr=subprocess.STDOUT
        )

    def __enter__(self) -> NodeProcess:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        sys.stdout.write(self.output())

    def output(self) -> str:
        """Everything printed so far."""
        self._log.seek(0)
        return self._log.read()

    def stop(self, number: int = signal.SIGINT) -> int:
        """Send a signal; the exit code once the process has ended."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.ended()

    def ended(self) -> int:
        """The exit code of a process that ends by itself; one that does not fails the test."""
        try:
            return self.process.wait(15.0 * PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            pytest.fail(f"the process does not end; it printed {self.output()}")

    def rss_mb(self) -> float:
        """Resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
