"""`flow3r label`: recordings in, a cache of flow labels out; here or on a Ray cluster, as often as
you like.

This process hands out names and keeps the books; workers read, cut, label and write (`worker`). So
a worker that dies costs the shard it was making, a second run does nothing, and runs beside each
other share the work.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from flow3r_ros.errors import StorageError
from flow3r_ros.storage import Location
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings
from flow3r_ros.training.labels.engines import Alone, Engine, Pool
from flow3r_ros.training.labels.teachers import open_teacher
from flow3r_ros.training.labels.worker import (
    Cut,
    CutTask,
    Labelled,
    LabelTask,
    Order,
    Result,
    Task,
)

EngineName = Literal["local", "ray"]


@dataclass
class LabelReport:
    """What a labelling run found and did; handed to `progress` as it grows. `failed`: source -> why
    it gave nothing; `nodes`: node -> pairs labelled there; `disagreed`: share of covisible pixels
    dropped because two teachers disagree, mean over the pairs."""

    sources: int = 0
    clips: int = 0
    frames: dict[str, int] = field(default_factory=dict)
    pairs: int = 0
    labelled: int = 0
    reused: int = 0
    relabelled: int = 0
    refused: dict[str, int] = field(default_factory=dict)
    disagreed: float = 0.0
    failed: dict[str, str] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json`, with `pairs_per_s`."""
        return {
            **asdict(self),
            "pairs_per_s": self.labelled / self.seconds if self.seconds > 0 else 0.0,
        }


def in_words(report: LabelReport) -> str:
    """How far a run is: pairs in all and per node."""
    nodes = "".join(f", {node} {pairs}" for node, pairs in sorted(report.nodes.items()))
    return f"{report.labelled} pairs{nodes if len(report.nodes) > 1 else ''}"


def label(
    sources: Sequence[Location],
    output: Location,
    settings: LabelSettings | None = None,
    engine: EngineName = "local",
    workers: int | None = None,
    address: str | None = None,
    topic: str | None = None,
    progress: Callable[[LabelReport], None] | None = None,
    gpus: float = 0.0,
) -> LabelReport:
    """Fill the label cache `output` from recordings.

    Args:
        sources: rosbags, video files, image folders, here or in storage.
        output: a folder or an address.
        settings: teacher, pairs, encoding (defaults: DIS).
        engine: `local` (this machine) or `ray` (`address` of a cluster, or a local one).
        workers: processes; None: one here, as many as the cluster has cores (GPUs) on Ray.
        topic: image topic of bags with several.
        progress: called with the growing report after every clip.
        gpus: of a Ray node that a worker holds while it labels, a share or 0.

    Several sources go on past a bad one, which the report names; a single bad one raises. An output
    that would hold no clip is not left behind.

    Raises InputError (a source without images), TrainingError (cache of other settings, unknown
    teacher), OutputError (disk full) and StorageError (finished shards stay).
    """
    settings = settings or LabelSettings()
    before = (output / "cache.json").exists()
    report = LabelReport()
    try:
        identity = open_teacher(settings.teacher, **settings.teacher_options).identity
        LabelCache(output, settings, identity)
        if engine == "ray":  # its workers may stand elsewhere
            sources = [_anchored(source) for source in sources]
        order = Order(str(_anchored(output)), settings.model_dump_json(), topic)
        with ExitStack() as stack:
            _run(_start(engine, order, workers, address, gpus, stack), report, sources, progress)
    except StorageError as error:
        cure = f"{error.cure} ({report.labelled} pairs of this run are stored)".strip()
        raise StorageError(error.what, cure) from error
    finally:
        if not before:
            with suppress(StorageError):
                _remove_if_empty(output)
    return report


def _run(
    engine: Engine,
    report: LabelReport,
    sources: Sequence[Location],
    progress: Callable[[LabelReport], None] | None,
) -> None:
    """Keep the engine busy until all is done."""
    books = _Books(report, sources)
    started = time.perf_counter()
    under_way = 0
    while True:
        while under_way < engine.capacity() and (task := books.next(under_way)) is not None:
            engine.submit(task)
            under_way += 1
        if not under_way:
            break
        for node, result in engine.finished():
            under_way -= 1
            books.take(node, result)
            report.seconds = time.perf_counter() - started
            if progress and isinstance(result, Labelled):
                progress(report)
    report.seconds = time.perf_counter() - started
    if progress:
        progress(report)


class _Books:
    """What is still to be handed out, and the report. Recordings are cut when no clip waits, so the
    list of clips stays as short as a few recordings are long."""

    def __init__(self, report: LabelReport, sources: Sequence[Location]) -> None:
        self._report = report
        self._sources = deque(str(source) for source in sources)
        self._single = len(sources) == 1
        self._clips: deque[LabelTask] = deque()
        self._elsewhere: deque[LabelTask] = deque()
        self._frames: Counter[str] = Counter()
        self._refused: Counter[str] = Counter()
        self._disagreed: list[float] = []
        self._nodes: Counter[str] = Counter()
        self._contents: set[str] = set()

    def next(self, under_way: int) -> Task | None:
        """The next task; None while there is none. Clips that a run beside this one is labelling
        come last, one by one."""
        if self._clips:
            return self._clips.popleft()
        if self._sources:
            return CutTask(self._sources.popleft())
        return self._elsewhere.popleft() if self._elsewhere and not under_way else None

    def take(self, node: str, result: Result) -> None:
        """Write a result into the books."""
        if isinstance(result, Cut):
            self._take_cut(result)
        else:
            self._take_labelled(node, result)

    def _take_cut(self, cut: Cut) -> None:
        report = self._report
        if cut.failure is not None:
            if self._single:
                raise cut.failure
            report.failed[cut.task.source] = str(cut.failure)
            return
        assert cut.index is not None
        report.sources += 1
        self._frames.update(cut.index.counts)
        report.frames = dict(self._frames)
        if cut.index.content in self._contents:
            return
        self._contents.add(cut.index.content)
        report.clips += len(cut.index.clips)
        self._clips += (
            LabelTask(cut.task.source, key, frames) for key, frames in cut.index.clips.items()
        )

    def _take_labelled(self, node: str, done: Labelled) -> None:
        report = self._report
        report.labelled += done.labelled
        report.relabelled += done.relabelled
        self._nodes[node] += done.labelled
        report.nodes = {name: pairs for name, pairs in self._nodes.items() if pairs}
        if done.left:  # all its pairs are counted when they are there, these as reused again
            report.reused -= done.labelled
            self._elsewhere.append(replace(done.task, wait=True))
            return
        report.pairs += done.labelled + done.reused
        report.reused += done.reused
        self._refused += done.refused
        report.refused = dict(self._refused)
        self._disagreed += done.disagreed
        report.disagreed = sum(self._disagreed) / max(1, len(self._disagreed))


def _anchored(place: Location) -> Location:
    """The same place, whatever folder a worker stands in."""
    return place.absolute() if isinstance(place, Path) else place


def _start(
    engine: EngineName,
    order: Order,
    workers: int | None,
    address: str | None,
    gpus: float,
    stack: ExitStack,
) -> Engine:
    if engine == "ray":
        from flow3r_ros.training.labels.ray_engine import RayCluster

        return stack.enter_context(RayCluster(order, workers, address, gpus))
    if workers is not None and workers > 1:
        return stack.enter_context(Pool(order, workers))
    return Alone(order)


def _remove_if_empty(output: Location) -> None:
    """Remove a cache that was made for nothing: it holds neither a clip nor the list of one."""
    if isinstance(output, Path):
        if output.is_dir() and not any(output.glob("clips/**/*.shard")):
            shutil.rmtree(output, ignore_errors=True)
    elif not (output / "clips").exists():
        for listed in output.listing():
            (output / listed).unlink(missing_ok=True)
