"""Labelling on Ray: the same worker function, wherever the cluster has a free core.

Clip bytes travel to the worker and shard bytes come back, so workers need the package but no shared
file system. A killed worker's task runs again elsewhere (`max_retries`), which costs the pairs of
that one shard.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from typing import Any

from flow3r_ros.errors import TrainingError, install_extra
from flow3r_ros.training.labels.cache import LabelUnit
from flow3r_ros.training.labels.worker import IN_FLIGHT_PER_WORKER, Job, label_unit

OBJECT_STORE_BYTES = 100 * 1024 * 1024
MAX_RETRIES = 5
CONNECT_TIMEOUT_S = 5.0


def run_on_ray(
    jobs: Iterator[Job], settings_json: str, workers: int, address: str | None
) -> Iterator[tuple[LabelUnit, bytes]]:
    """Label jobs on the cluster at `address` (`ray://host:port`), or on a local one with `workers`
    CPUs that ends with the run.

    At most two shards a worker are under way, so memory stays bounded. Raises TrainingError when
    Ray is absent or unreachable.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError as error:
        raise TrainingError(
            "the ray engine needs Ray", f"{install_extra('fleet')}, or use --engine local"
        ) from error
    ours = not ray.is_initialized()
    if ours:
        _connect(ray, workers, address)
    try:
        task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(label_unit)
        running: dict[object, LabelUnit] = {}
        more = True
        while more or running:
            while more and len(running) < workers * IN_FLIGHT_PER_WORKER:
                job = next(jobs, None)
                more = job is not None
                if job is not None:
                    running[task.remote(job[1], job[0].pairs, settings_json)] = job[0]
            if running:
                done, _ = ray.wait(list(running), num_returns=1)
                shard = ray.get(done[0])
                yield running.pop(done[0]), bytes(shard)
    except ray.exceptions.RayError as error:
        raise TrainingError(
            f"Ray gave up: {type(error).__name__}",
            "look at the Ray logs; a second run continues where this one ended",
        ) from error
    finally:
        if ours:
            ray.shutdown()


def _connect(ray: Any, workers: int, address: str | None) -> None:
    options: dict[str, Any] = {
        "num_cpus": workers,
        "num_gpus": 0,
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
