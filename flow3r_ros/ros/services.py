"""`~/reset`, `~/save_map` and `~/load_map`: coroutines that await other threads, so that no
callback waits for a step in progress."""

from __future__ import annotations

from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

from rclpy.node import Node
from rclpy.task import Future

from flow3r_ros.config import Config
from flow3r_ros.errors import Flow3rError, OutputError
from flow3r_ros.paths import remove_leftovers
from flow3r_ros.ros.framing import Framing
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.messages import class_of
from flow3r_ros.ros.once import Once
from flow3r_ros.ros.publishers import MapPoints, Publishers
from flow3r_ros.ros.saving import Trail, save_dir, save_map
from flow3r_ros.ros.worker import Worker

T = TypeVar("T")


@dataclass(frozen=True)
class Active:
    """The parts of an active node that a service works with."""

    loaded: Loaded
    publishers: Publishers
    worker: Worker
    framing: Framing

    def map_points(self) -> MapPoints | None:
        """The voxel map, None before the first keyframe; only from a job of the worker."""
        return self.loaded.engine.map.points() if self.loaded.engine.map is not None else None


class Services:
    """Answers the services of the contract.

    Args:
        active: the parts of the node, None while it is not active.
    """

    def __init__(
        self,
        node: Node,
        active: Callable[[], Active | None],
        config: Config,
        trail: Trail,
        say: Once,
    ) -> None:
        self._node, self._active, self._config, self._trail, self._say = (
            node,
            active,
            config,
            trail,
            say,
        )
        self._background = futures.ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="flow3r_saving"
        )
        with suppress(OutputError):  # said when a map is saved
            remove_leftovers(save_dir(config))
        trigger = class_of("std_srvs/srv/Trigger")
        node.create_service(trigger, "~/reset", self._on_reset)
        node.create_service(trigger, "~/save_map", self._on_save_map)
        node.create_service(trigger, "~/load_map", self._on_load_map)

    async def _on_reset(self, request: Any, response: Any) -> Any:
        active = self._active()
        if active is None:
            response.success, response.message = False, "not active"
            return response
        active.framing.forget_time()

        def reset() -> None:
            active.worker.reset()
            active.publishers.restart()

        await self._answer(active.worker.post(reset))
        self._say.forget()
        response.success, response.message = True, "trajectory, map and counters start anew"
        return response

    async def _on_save_map(self, request: Any, response: Any) -> Any:
        active = self._active()
        if active is None:
            response.success, response.message = False, "not active"
            return response
        try:
            points = await self._answer(active.worker.post(active.map_points))
            write = partial(
                save_map, self._config, points, self._trail, active.loaded, active.worker.tally()
            )
            folder = await self._answer(self._background.submit(write))
        except Flow3rError as error:
            response.success, response.message = False, str(error)
        else:
            response.success, response.message = True, str(folder)
        return response

    async def _on_load_map(self, request: Any, response: Any) -> Any:
        active = self._active()
        mapper = None if active is None else active.loaded.mapper
        if active is None or mapper is None:
            what = "not active" if active is None else "there is no map; set slam.enabled: true"
            response.success, response.message = False, what
            return response
        try:
            count = await self._answer(self._background.submit(mapper.load))
        except Flow3rError as error:
            response.success, response.message = False, str(error)
        else:
            response.success = True
            response.message = f"{self._config.slam.map}: {count} keyframes"
        return response

    async def _answer(self, result: futures.Future[T]) -> T:
        """Await what another thread computes, without holding up the executor."""
        done = Future(executor=self._node.executor)
        result.add_done_callback(lambda _: done.set_result(None))
        await done
        return result.result()
