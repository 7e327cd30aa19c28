"""The loop that run, replay and scoreboards share: every frame of a source through the engine."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from time import perf_counter

from flow3r_ros.datasets.sources import Source
from flow3r_ros.errors import FrameError
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.offline.progress import FrameProgress
from flow3r_ros.types import Estimate, Frame, Inertial


@dataclass
class Timing:
    """Where the time of a run went: seconds overall, in the engine, waiting for frames, writing
    results; milliseconds of each frame from its handing over to its estimate. `behind_s` is the
    time of a thread that writes beside the engine.

    `unusable` counts, by reason, the images that could not be decoded up to now in the stream.
    """

    wall_s: float = 0.0
    engine_s: float = 0.0
    wait_s: float = 0.0
    write_s: float = 0.0
    behind_s: float = 0.0
    unusable: Counter[str] = field(default_factory=Counter)
    latency_ms: array[float] = field(default_factory=lambda: array("f"))


def drive(
    source: Source,
    engine: Engine,
    take: Callable[[Estimate], None],
    quiet: bool = False,
    timing: Timing | None = None,
    skip: int = 0,
    stop: Callable[[int], bool] | None = None,
    see: Callable[[Frame], None] | None = None,
) -> Timing:
    """Every frame of an open source through the engine, in order, nothing dropped; `take` gets each
    estimate, and `see` each frame before it goes in.

    Odometry samples and readings of the source go to the engine at their place in the stream.
    `timing` is filled as the run goes, and returned. The first `skip` events of the source, which
    the engine knows already, are only read; `stop`, asked after each event with how many were read,
    ends the run.
    """
    timing = timing or Timing()
    begin = ready = perf_counter()
    earlier_s = timing.wall_s
    given: dict[int, float] = {}

    def settle(estimates: Iterable[Estimate]) -> None:
        start = perf_counter()
        for estimate in estimates:
            ready = perf_counter()
            timing.engine_s += ready - start
            for id_ in [id_ for id_ in given if id_ < estimate.frame_id]:
                del given[id_]
            timing.latency_ms.append(1e3 * (ready - given.pop(estimate.frame_id, ready)))
            take(estimate)
            start = perf_counter()
            timing.write_s += start - ready
        timing.engine_s += perf_counter() - start

    with FrameProgress(source.path.name, source.total, quiet) as progress:
        for count, event in enumerate(source.events(), 1):
            if count <= skip:
                begin = ready = perf_counter()
                continue
            start = perf_counter()
            timing.wait_s += start - ready
            if isinstance(event, Frame):
                if see is not None:
                    see(event)
                given[event.id] = start
                settle(engine.feed(event))
            elif isinstance(event, FrameError):
                timing.unusable[event.reason] += 1
            elif isinstance(event, Inertial):
                engine.add_inertial(event)
            else:
                engine.add_odometry(event.stamp_ns, event.T_odom_child)
            progress.reach(len(timing.latency_ms) + (engine.drops + timing.unusable).total())
            ready = perf_counter()
            timing.wall_s = earlier_s + ready - begin
            if stop is not None and stop(count):
                break
        settle(engine.finish())
    timing.wall_s = earlier_s + perf_counter() - begin
    return timing
