"""Builds the engine that the node steps, and says what is known about its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flow3r_ros.config import Config
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.ros.flow_tap import FlowTap
from flow3r_ros.ros.worker import Outcome, Tally
from flow3r_ros.slam.mapper import Mapper
from flow3r_ros.types import Predictor
from flow3r_ros.wire.outputs import RunStatus


@dataclass(frozen=True)
class Loaded:
    """An engine ready to step, and the `mapper` of its keyframes with `slam.enabled`; `memory_mb`
    is the GPU memory of its network, 0 on a CPU; `free` gives everything back; `flow` gives the
    network's flow, None without a network."""

    engine: Engine
    model: str
    weights_sha256: str
    weights_license: str
    device: str
    memory_mb: Callable[[], float]
    free: Callable[[], None]
    flow: FlowTap | None = None
    mapper: Mapper | None = None

    def run_status(self, outcome: Outcome, age_ms: float) -> RunStatus:
        """What `~/status` says beside the estimate; `age_ms` is the node's clock minus the image's
        stamp."""
        status = replace(self.status(outcome.tally), latency_ms=outcome.latency_ms, age_ms=age_ms)
        if self.mapper is None:
            return status
        state, scale = self.mapper.state, self.engine.scale
        centre = outcome.estimate.T_odom_cam[:3, 3]
        since = outcome.estimate.stamp_ns - (state.changed_ns or outcome.estimate.stamp_ns)
        return replace(
            status,
            loops_closed=state.closed,
            map_to_odom_age_s=1e-3 * age_ms + 1e-9 * since,
            T_map_odom=state.map_to_odom(scale.factor, scale.offset, centre),
        )

    def status(self, tally: Tally) -> RunStatus:
        """Counts and model, without what belongs to one estimate."""
        return RunStatus(
            received=tally.received,
            estimated=tally.estimated,
            drops=tally.drops,
            seams_refused=self.engine.seams_refused,
            model=self.model,
            weights_sha256=self.weights_sha256,
            weights_license=self.weights_license,
        )


class MappedEngine(Engine):
    """An engine whose keyframes go to the map, which is reset and closed with it."""

    def __init__(self, predictor: Predictor, config: Config) -> None:
        self.mapper = Mapper(config.slam, live=True)
        super().__init__(predictor, config, self.mapper.take)

    def reset(self) -> None:
        """Start anew, with an empty map."""
        super().reset()
        self.mapper.reset()

    def close(self) -> None:
        """End the threads."""
        super().close()
        self.mapper.close()


def engine_of(predictor: Predictor, config: Config) -> tuple[Engine, Mapper | None]:
    """The engine of a node, and the mapper of its keyframes where the settings want a map."""
    if not config.slam.enabled:
        return Engine(predictor, config), None
    engine = MappedEngine(predictor, config)
    return engine, engine.mapper


def load(config: Config) -> Loaded:
    """The configured model and an engine around it. Raises ModelError when the model is missing or
    damaged.

    Torch is imported here, at configure time, so that the process starts and answers before it.
    """
    from flow3r_ros.network.catalog import find_model
    from flow3r_ros.network.runner import open_predictor

    manifest = find_model(config.model.name).manifest
    runner = open_predictor(config.model)
    flow = FlowTap(runner)
    engine, mapper = engine_of(flow, config)

    def free() -> None:
        engine.close()
        runner.close()

    return Loaded(
        engine=engine,
        model=manifest.name,
        weights_sha256=manifest.sha256,
        weights_license=manifest.license,
        device=runner.runs_on,
        memory_mb=runner.memory_mb,
        free=free,
        flow=flow,
        mapper=mapper,
    )
