"""Suites `rates` and `memory`: the shipped node with the shipped model under a 640x480 camera.

`rates`: what comes out, how late and at which cost, by the camera's rate, by who listens, on the
machine as it is and with a busy process for each of its cores beside it. `memory`: resident memory
over time with every output listened to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from rclpy.serialization import deserialize_message

from flow3r_ros.bench.faults import SHARED
from flow3r_ros.bench.node_world import NodeProcess, World, world
from flow3r_ros.bench.run import CLIP
from flow3r_ros.errors import EvaluationError
from flow3r_ros.ros.messages import class_of
from flow3r_ros.wire.outputs import TOPICS
from flow3r_ros.wire.transforms import stamp_ns

FILM, PICTURES = "sevenscenes_redkitchen", 300
"""what is played where it is here, else the bundled clip; how much of it is held in memory"""
NODE, NAMESPACE = "shipped", "/live"
RATES = (5.0, 10.0, 15.0, 30.0, 60.0)
LISTENERS = {"nobody": (), "~/odometry": ("~/odometry",), "every output": tuple(TOPICS)}
WARM_UP, START_S = 10, 300.0
"""estimates before anything counts, and the longest wait for a node's first word"""
SETTLE_S, WINDOW_S = 2.0, 8.0
"""before a window of the rate table, and its length"""
MEMORY_RATE = 10.0
"""of the camera while memory is watched: two shared cores keep up with it"""
MINUTES, HOUR = 3, 60
"""of the memory curve, and when `thorough`"""
SAMPLE_S = 10.0
Table = list[dict[str, str]]


def bench_rates(thorough: bool = False) -> dict[str, Any]:
    """The rate table, 6 minutes; windows four times as long when `thorough`."""
    seconds = WINDOW_S * (4 if thorough else 1)
    table: Table = []
    with _playing() as (place, node, set_rate):
        for machine, beside in (("as it is", 0), ("loaded", os.cpu_count() or 1)):
            with _busy(beside):
                for listener, topics in LISTENERS.items():
                    for rate in RATES:
                        set_rate(rate)
                        row = {"machine": machine, "listener": listener, "camera": f"{rate:g} Hz"}
                        table.append(row | _window(place, node, topics, seconds))
    return {"table": table, "busy processes when loaded": os.cpu_count()}


def bench_memory(thorough: bool = False) -> dict[str, Any]:
    """The memory curve over MINUTES, an HOUR when `thorough`."""
    return measure_memory(60.0 * (HOUR if thorough else MINUTES))


def measure_memory(seconds: float) -> dict[str, Any]:
    """Resident memory at twelve even moments (medians of the time since the one before), and how
    much the last sixth of the time has more than the third sixth."""
    with _playing() as (place, node, set_rate):
        place.listen_to_everything(NAMESPACE)
        set_rate(MEMORY_RATE)
        table: Table = []
        curve: list[float] = []
        samples = max(12, int(seconds / SAMPLE_S))
        start = time.monotonic()
        for index in range(samples):
            time.sleep(max(0.0, start + (index + 1) * seconds / samples - time.monotonic()))
            curve.append(node.resident_mb())
            if (index + 1) * 12 // samples > index * 12 // samples:
                values = place.diagnostics(0)
                table.append(
                    {
                        "minutes": f"{(time.monotonic() - start) / 60:.1f}",
                        "MB": f"{np.median(curve[-max(1, samples // 12) :]):.0f}",
                        "images estimated": values["frames estimated"],
                        "load average": f"{os.getloadavg()[0]:.1f}",
                    }
                )
    sixth = len(curve) // 6
    early, late = float(np.median(curve[2 * sixth : 3 * sixth])), float(np.median(curve[-sixth:]))
    return {
        "rows": [
            {
                "name": "resident memory, last sixth of the time",
                "median": late,
                "unit": "MB",
                "baseline": "third sixth",
                "baseline_median": early,
                "ratio": early / late,
                "note": f"{100 * (late / early - 1):+.1f} %; goal over an hour: within 2 %",
            }
        ],
        "table": table,
        "seconds": seconds,
    }


@contextmanager
def _playing() -> Iterator[tuple[World, NodeProcess, Callable[[float], None]]]:
    """The shipped node, and a camera whose rate can be set."""
    clip = SHARED / FILM if (SHARED / FILM).is_dir() else CLIP
    with (
        world() as place,
        place.start(NODE, NAMESPACE) as node,
        place.camera(clip, PICTURES, NAMESPACE) as set_rate,
    ):
        set_rate(RATES[0])
        _warm_up(place, node)
        yield place, node, set_rate
        node.end()


def _warm_up(place: World, node: NodeProcess) -> None:
    """Wait for `WARM_UP` estimates: minutes, where the machine is busy."""
    end = time.monotonic() + START_S
    while True:
        try:
            if int(place.diagnostics(1)["frames estimated"]) >= WARM_UP:
                return
        except EvaluationError:
            if time.monotonic() > end:
                raise
        node.must_run()


def _window(
    place: World, node: NodeProcess, topics: tuple[str, ...], seconds: float
) -> dict[str, str]:
    """One row's figures."""
    ages: list[float] = []

    def heard_tf(data: bytes) -> None:
        message = deserialize_message(data, class_of(TOPICS["/tf"]))
        sent = stamp_ns(message.transforms[0].header.stamp)
        ages.append((time.time_ns() - sent) * 1e-6)

    with ExitStack() as listening:
        for topic in topics:
            heard = {"heard": heard_tf} if topic == "/tf" else {}
            listening.callback(place.forget, place.listen(NAMESPACE, topic, **heard))
        time.sleep(SETTLE_S)
        first, cpu, start = place.diagnostics(1), node.cpu_s(), time.monotonic()
        ages.clear()
        rounds = [first]
        while time.monotonic() < start + seconds:
            rounds.append(place.diagnostics(1))
        took = time.monotonic() - start
        cpu = node.cpu_s() - cpu
    states = Counter(values["tracking state"] for values in rounds[1:])

    def rate(what: str) -> str:
        return f"{(int(rounds[-1][f'frames {what}']) - int(first[f'frames {what}'])) / took:.1f}"

    def latency(which: str) -> str:
        told = np.array([float(values[f"latency {which} [ms]"]) for values in rounds[1:]])
        known = told[np.isfinite(told)]  # NaN: nothing was estimated for five seconds
        return f"{np.median(known):.0f}" if known.size else "none"

    return {
        "received /s": rate("received"),
        "estimated /s": rate("estimated"),
        "latency p50, p95": f"{latency('p50')}, {latency('p95')} ms",
        "tf age p95": f"{np.percentile(ages, 95):.0f} ms" if ages else "",
        "CPU": f"{100 * cpu / took:.0f} %",
        "mostly": states.most_common(1)[0][0],
        "load average": f"{os.getloadavg()[0]:.1f}",
    }


@contextmanager
def _busy(count: int) -> Iterator[None]:
    """That many processes that compute without end."""
    processes = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(count)]
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()
