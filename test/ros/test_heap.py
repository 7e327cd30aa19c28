"""What is freed goes back to the system, also from between what is kept."""

from __future__ import annotations

import os
from pathlib import Path

from flow3r_ros.ros.heap import give_back


def rss_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def test_pages_between_what_is_kept_go_back() -> None:
    blocks = [bytearray(60_000) for _ in range(2000)]  # too small to be mapped one by one
    kept = blocks[::20]
    full = rss_mb()
    del blocks
    give_back()
    assert rss_mb() < full - 80
    assert len(kept) == 100
