"""`flow3r label`: recordings in, a cache of flow labels out; here or on a Ray cluster, as often as
you like.

Recordings are cut into clips once; each missing or damaged shard of labels is made by a worker that
sees only the clip's bytes and returns the shard's bytes, and this process alone writes. So a worker
that dies costs the pairs it was working on, a second run does nothing, and runs beside each other
share the work.
"""

from __future__ import annotations

import shutil
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

from flow3r_ros.errors import CameraError, InputError, TrainingError
from flow3r_ros.training.labels.cache import LabelCache, LabelSettings, LabelUnit
from flow3r_ros.training.labels.clip_index import index_source
from flow3r_ros.training.labels.clip_store import clip_path
from flow3r_ros.training.labels.teachers import open_teacher
from flow3r_ros.training.labels.worker import IN_FLIGHT_PER_WORKER, Job, end_with_parent, label_unit
from flow3r_ros.training.shards import is_whole

Engine = Literal["local", "ray"]
MAX_POOL_RESTARTS = 5


@dataclass
class LabelReport:
    """What a labelling run found and did; handed to `progress` as it grows. `failed`: source -> why
    it gave nothing; `disagreed`: share of covisible pixels dropped because two teachers disagree,
    mean over the pairs."""

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
    seconds: float = 0.0

    def as_dict(self) -> dict[str, Any]:
        """Plain data for `--json`, with `pairs_per_s`."""
        return {
            **asdict(self),
            "pairs_per_s": self.labelled / self.seconds if self.seconds > 0 else 0.0,
        }


def label(
    paths: list[Path],
    output: Path,
    settings: LabelSettings | None = None,
    engine: Engine = "local",
    workers: int = 1,
    address: str | None = None,
    topic: str | None = None,
    progress: Callable[[LabelReport], None] | None = None,
) -> LabelReport:
    """Fill the label cache `output` from recordings.

    Args:
        paths: rosbags, video files, image folders.
        settings: teacher, pairs, encoding (defaults: DIS).
        engine: `local` (this machine, `workers` processes) or `ray` (`address` of a cluster, or a
            local one with `workers` CPUs).
        topic: image topic of bags with several.
        progress: called with the growing report after every shard.

    Several sources go on past a bad one, which the report names; a single bad one raises. An output
    that would hold no clip is not left behind.

    Raises InputError (a source without images), TrainingError (cache of other settings, unknown
    teacher), OutputError (disk full; finished shards stay).
    """
    settings = settings or LabelSettings()
    before = output.exists()
    try:
        return _label(paths, output, settings, engine, workers, address, topic, progress)
    finally:
        if not before:
            _remove_if_empty(output)


def _label(
    paths: list[Path],
    output: Path,
    settings: LabelSettings,
    engine: Engine,
    workers: int,
    address: str | None,
    topic: str | None,
    progress: Callable[[LabelReport], None] | None,
) -> LabelReport:
    cache = LabelCache(
        output, settings, open_teacher(settings.teacher, **settings.teacher_options).identity
    )
    report = LabelReport()
    started = time.perf_counter()
    refused: Counter[str] = Counter()
    run = _Run(cache, report, refused, paths, topic)
    for unit, shard in _start(engine, workers, address, settings, run.jobs()):
        run.finish(unit, shard)
        report.seconds = time.perf_counter() - started
        if progress:
            progress(report)
    run.wait_for_others()
    report.refused = dict(refused)
    report.seconds = time.perf_counter() - started
    if progress:
        progress(report)
    return report


def _remove_if_empty(output: Path) -> None:
    """Remove a cache that holds neither a clip nor the list of one."""
    if output.is_dir() and not any(output.glob("clips/**/*.shard")):
        shutil.rmtree(output, ignore_errors=True)


class _Run:
    """Keeps the books of one labelling run: which shards are needed, claimed by us, or being made
    by a run beside us."""

    def __init__(
        self,
        cache: LabelCache,
        report: LabelReport,
        refused: Counter[str],
        paths: list[Path],
        topic: str | None,
    ) -> None:
        self._cache, self._report, self._refused, self._paths, self._topic = (
            cache,
            report,
            refused,
            paths,
            topic,
        )
        self._claims: dict[str, ExitStack] = {}
        self._elsewhere: list[LabelUnit] = []
        self._disagreed: list[float] = []

    def jobs(self) -> Iterator[Job]:
        """The shards to make; each is claimed as it is handed out."""
        frames: Counter[str] = Counter()
        seen: set[str] = set()
        for path in self._paths:
            try:
                clips = self._index(path)
            except (InputError, CameraError) as error:
                if len(self._paths) == 1:
                    raise
                self._report.failed[str(path)] = str(error)
                continue
            frames.update(clips[1])
            self._report.sources += 1
            self._report.frames = dict(frames)
            for key, count in clips[0].items():
                if key in seen:
                    continue
                seen.add(key)
                self._report.clips += 1
                self._mend(key, path)
                for unit in self._cache.units(key, count):
                    yield from self._job(unit)

    def _index(self, path: Path) -> tuple[dict[str, int], dict[str, int]]:
        with self._cache.lock("index", wait=True):
            index = index_source(path, self._cache.folder, self._cache.settings.clips, self._topic)
        return index.clips, index.counts

    def _mend(self, key: str, path: Path) -> None:
        """Cut a clip anew whose shard is damaged; its labels stay, they are addressed by its
        content."""
        shard = clip_path(self._cache.folder, key)
        if is_whole(shard):
            return
        with self._cache.lock("index", wait=True):
            if not is_whole(shard):
                shard.unlink(missing_ok=True)
                index_source(path, self._cache.folder, self._cache.settings.clips, self._topic)

    def _job(self, unit: LabelUnit) -> Iterator[Job]:
        self._report.pairs += len(unit.pairs)
        if self._cache.state(unit) == "done":
            self._count_reused(unit)
        elif not self._claim(unit):
            self._elsewhere.append(unit)
        elif self._cache.state(unit) == "done":  # made elsewhere between the look and the claim
            self._release(unit)
            self._count_reused(unit)
        else:
            self._report.relabelled += (
                len(unit.pairs) if self._cache.state(unit) == "damaged" else 0
            )
            yield unit, self._cache.clip_path(unit).read_bytes()

    def finish(self, unit: LabelUnit, shard: bytes) -> None:
        """Store a finished shard and count it."""
        self._cache.store(unit, shard)
        self._release(unit)
        self._report.labelled += len(unit.pairs)
        self._count(unit)
        self._report.refused = dict(self._refused)

    def wait_for_others(self) -> None:
        """Wait for shards that runs beside us are making; make those ourselves whose maker died."""
        for unit in self._elsewhere:
            with self._cache.lock(unit.key, wait=True):
                if self._cache.state(unit) != "done":
                    shard = label_unit(
                        self._cache.clip_path(unit).read_bytes(),
                        unit.pairs,
                        self._cache.settings.model_dump_json(),
                    )
                    self.finish(unit, shard)
                    continue
            self._count_reused(unit)

    def _count_reused(self, unit: LabelUnit) -> None:
        self._report.reused += len(unit.pairs)
        self._count(unit)

    def _count(self, unit: LabelUnit) -> None:
        """Count what the teacher refused and what two teachers disagreed on."""
        self._refused.update(reason for reason in self._cache.reasons(unit) if reason)
        self._disagreed += self._cache.disagreed(unit)
        self._report.disagreed = sum(self._disagreed) / len(self._disagreed)

    def _claim(self, unit: LabelUnit) -> bool:
        stack = ExitStack()
        mine = stack.enter_context(self._cache.lock(unit.key, wait=False))
        if mine:
            self._claims[unit.key] = stack
        return mine

    def _release(self, unit: LabelUnit) -> None:
        if unit.key in self._claims:
            self._claims.pop(unit.key).close()


def _start(
    engine: Engine, workers: int, address: str | None, settings: LabelSettings, jobs: Iterator[Job]
) -> Iterator[tuple[LabelUnit, bytes]]:
    settings_json = settings.model_dump_json()
    if engine == "ray":
        from flow3r_ros.training.labels.ray_engine import run_on_ray

        return run_on_ray(jobs, settings_json, workers, address)
    if workers > 1:
        return run_on_pool(jobs, settings_json, workers)
    return ((unit, label_unit(clip, unit.pairs, settings_json)) for unit, clip in jobs)


def run_on_pool(
    jobs: Iterator[Job], settings_json: str, workers: int
) -> Iterator[tuple[LabelUnit, bytes]]:
    """Label with processes of this machine; when one is killed, the pool is renewed and only
    unfinished shards are made again."""
    waiting: list[Job] = []
    for _ in range(MAX_POOL_RESTARTS):
        running: dict[Future[bytes], Job] = {}
        try:
            with ProcessPoolExecutor(workers, get_context("spawn"), end_with_parent) as pool:
                while True:
                    while len(running) < workers * IN_FLIGHT_PER_WORKER:
                        job = waiting.pop() if waiting else next(jobs, None)
                        if job is None:
                            break
                        running[pool.submit(label_unit, job[1], job[0].pairs, settings_json)] = job
                    if not running:
                        return
                    for future in wait(running, return_when=FIRST_COMPLETED).done:
                        shard = future.result()
                        yield running.pop(future)[0], shard
        except BrokenProcessPool:
            waiting += running.values()
    raise TrainingError(
        "label workers keep being killed", "use fewer workers, or a machine with more memory"
    )
