"""Builds the engine that the node steps, and says what is known about its weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from flow3r_ros.config import Config
from flow3r_ros.odometry.engine import Engine
from flow3r_ros.ros.flow_tap import FlowTap
from flow3r_ros.ros.worker import Outcome, Tally
from flow3r_ros.wire.outputs import RunStatus


@dataclass(frozen=True)
class Loaded:
    """An engine ready to step; `memory_mb` is the GPU memory of its network, 0 on a CPU; `free`
    gives everything back; `flow` gives the network's flow, None without a network."""

    engine: Engine
    model: str
    weights_sha256: str
    weights_license: str
    device: str
    memory_mb: Callable[[], float]
    free: Callable[[], None]
    flow: FlowTap | None = None

    def run_status(self, outcome: Outcome, age_ms: float) -> RunStatus:
        """What `~/status` says beside the estimate; `age_ms` is the node's clock minus the image's
        stamp."""
        return replace(self.status(outcome.tally), latency_ms=outcome.latency_ms, age_ms=age_ms)

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
    engine = Engine(flow, config)

    def free() -> None:
        engine.close()
        runner.close()

    return Loaded(
        engine=engine,
        model=manifest.name,
        weights_sha256=manifest.sha256,
        weights_license=manifest.license,
        device=str(runner.device),
        memory_mb=runner.memory_mb,
        free=free,
        flow=flow,
    )
