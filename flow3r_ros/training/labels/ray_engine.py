"""Labelling on Ray: the same worker function, wherever the cluster has a free core (or GPU).

Names travel to the workers and counts come back; recordings, clips and shards go between workers
and the cache, which lies in object storage or on a file system that all nodes share. A killed
worker's or a lost node's tasks run again elsewhere (`max_retries`) and find the shards that were
finished, so they cost the shard under way.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from typing import Any

from flow3r_ros.errors import Flow3rError, TrainingError, install_extra
from flow3r_ros.training.labels.engines import IN_FLIGHT_PER_WORKER, Done
from flow3r_ros.training.labels.worker import CutTask, Order, Result, Task, work

OBJECT_STORE_BYTES = 100 * 1024 * 1024
MAX_RETRIES = 5
CONNECT_TIMEOUT_S = 5.0
LOOK_EVERY_S = 5.0
"""seconds between two looks at how large the cluster is"""


class RayCluster:
    """The cluster at `address` (`ray://host:port`), the one that this process is connected to, or a
    local one that ends with the run. A context manager.

    Args:
        order: what all tasks share.
        workers: most tasks at a time; None: as many as the cluster has cores (GPUs, with `gpus`).
        gpus: GPUs that labelling a clip holds, a share or 0; cutting holds a core.

    Raises TrainingError when Ray is absent, unreachable, or has no GPU where one is asked for.
    """

    def __init__(self, order: Order, workers: int | None, address: str | None, gpus: float) -> None:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        try:
            import ray
        except ImportError as error:
            raise TrainingError(
                "the ray engine needs Ray", f"{install_extra('fleet')}, or use --engine local"
            ) from error
        self._ray, self._order, self._most, self._gpus = ray, order, workers, gpus
        self._running: dict[object, Task] = {}
        self._size, self._looked = 0, 0.0
        self._ours = not ray.is_initialized()
        if self._ours:
            _connect(ray, workers, address)
        self._cut = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(cut_recording)
        self._label = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=MAX_RETRIES)(label_clip)

    def __enter__(self) -> RayCluster:
        return self

    def __exit__(self, *_: object) -> None:
        if self._ours:
            self._ray.shutdown()

    def capacity(self) -> int:
        """See `Engine`."""
        if time.monotonic() - self._looked > LOOK_EVERY_S or not self._size:
            self._size, self._looked = self._workers(), time.monotonic()
        return self._size * IN_FLIGHT_PER_WORKER

    def submit(self, task: Task) -> None:
        """See `Engine`."""
        remote = self._cut if isinstance(task, CutTask) else self._label
        self._running[remote.remote(self._order, task)] = task

    def finished(self) -> Iterator[Done]:
        """See `Engine`. Looks up from waiting now and then, as the cluster may have grown."""
        waiting = list(self._running)
        try:
            done, _ = self._ray.wait(waiting, num_returns=1, timeout=LOOK_EVERY_S)
            more, _ = self._ray.wait(waiting, num_returns=len(waiting), timeout=0)
            for reference in dict.fromkeys([*done, *more]):
                node, result = self._ray.get(reference)
                del self._running[reference]
                yield node, result
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, Flow3rError):
                raise error.cause from error
            raise _gave_up(error) from error
        except self._ray.exceptions.RayError as error:
            raise _gave_up(error) from error

    def _workers(self) -> int:
        there = self._ray.cluster_resources()
        size = int(there.get("CPU", 0))
        if self._gpus:
            size = min(size, int(there.get("GPU", 0) / self._gpus))
            if size == 0:
                raise TrainingError(
                    "the cluster has no GPU", "leave --gpus-per-worker out, or add a GPU node"
                )
        return max(1, size if self._most is None else min(size, self._most))


def cut_recording(order: Order, task: Task) -> tuple[str, Result]:
    """`work` on a node, with the node's name; Ray shows this function's."""
    return _node(), work(order, task)


def label_clip(order: Order, task: Task) -> tuple[str, Result]:
    """`work` on a node, with the node's name; Ray shows this function's."""
    return _node(), work(order, task)


def _node() -> str:
    import ray

    return f"{socket.gethostname()}/{ray.get_runtime_context().get_node_id()[:6]}"


def _gave_up(error: Exception) -> TrainingError:
    return TrainingError(
        f"Ray gave up: {type(error).__name__}",
        "look at the Ray logs; a second run continues where this one ended",
    )


def _connect(ray: Any, workers: int | None, address: str | None) -> None:
    options: dict[str, Any] = {
        "address": "local",
        "num_cpus": workers,
        "object_store_memory": OBJECT_STORE_BYTES,
        "include_dashboard": False,
    }
    where = address or "this machine"
    try:
        if address:
            _knock(address)
            options = {"address": address}
        ray.init(**options, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    except (OSError, RuntimeError, ValueError) as error:
        raise TrainingError(
            f"no Ray at {where}: {error}", "check the address and that versions match"
        ) from error


def _knock(address: str) -> None:
    """Raise OSError at once when nobody listens: Ray itself would try for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()
