"""The lifecycle node `flow3r`: wiring only.

configure loads the model and opens the topics, activate subscribes, deactivate and cleanup give
everything back. Image callbacks leave the message in the worker's slot; the worker decodes it and
steps the engine; a third thread publishes. Services await the worker as coroutines, so no callback
waits for a step in progress.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.callback_groups import ReentrantCallbackGroup
from rclpy.lifecycle import LifecycleNode, LifecycleState, TransitionCallbackReturn
from rclpy.parameter import Parameter

from flow3r_ros.config import Config
from flow3r_ros.errors import Flow3rError
from flow3r_ros.ros import heap, qos
from flow3r_ros.ros.bond import Bond
from flow3r_ros.ros.framing import Framing
from flow3r_ros.ros.inputs import Input, image_input
from flow3r_ros.ros.loading import Loaded
from flow3r_ros.ros.once import NEW_SEGMENT, Once
from flow3r_ros.ros.parameters import apply_changes, declare_parameters, unknown_overrides
from flow3r_ros.ros.publishers import Publishers
from flow3r_ros.ros.reporting import STEADY, Parts, Reporting
from flow3r_ros.ros.saving import Trail
from flow3r_ros.ros.services import Active, Services
from flow3r_ros.ros.side_inputs import SideInputs
from flow3r_ros.ros.worker import Outcome, Worker
from flow3r_ros.types import Float64
from flow3r_ros.wire.transforms import StaticTransforms

FOLLOW_PERIOD_S = 0.1
STEP_TIMEOUT_S = 20.0
"""how long deactivation waits for the step in progress"""
SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Flow3rNode(LifecycleNode):  # type: ignore[misc]
    """Camera in; tf, odometry, depth and clouds out.

    Args:
        load: makes the engine of a configuration; called at configure.
        options: passed on to `rclpy.node.Node` (namespace, parameter_overrides, ...).
    """

    def __init__(self, load: Callable[[Config], Loaded], **options: Any) -> None:
        super().__init__("flow3r", **options)
        self._load = load
        self.config = declare_parameters(self)
        self.autostart = self.declare_parameter(
            "autostart",
            True,
            ParameterDescriptor(
                description="configure and activate by itself at start", read_only=True
            ),
        ).value
        self.say = Once(self.get_logger())
        for name in unknown_overrides(self):
            self.say(
                f"parameter {name}",
                f"parameter '{name}' does not exist and is ignored; docs/parameters.md lists all",
            )
        self.add_on_set_parameters_callback(self._on_parameters)
        self._sensors = ReentrantCallbackGroup()
        self._static = StaticTransforms()
        self._loaded: Loaded | None = None
        self._publishers_out: Publishers | None = None
        self._worker: Worker | None = None
        self._framing: Framing | None = None
        self._inputs: list[Input] = []
        self._side_inputs: SideInputs | None = None
        self._timers_active: list[Any] = []
        self._trail = Trail()
        self._bond = Bond(self)
        self._reporting = Reporting(self, self.config, self.say, self._parts)
        self._services_offered = Services(self, self._active, self.config, self._trail, self.say)

    # --- lifecycle --------------------------------------------------------------------------------

    def on_configure(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Load the model and open the output topics."""
        return self._transition("configure", self._configure, undo=self._free)

    def on_activate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Start the inference thread and subscribe."""
        return self._transition("activate", self._activate, undo=self._deactivate)

    def on_deactivate(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Unsubscribe and end the inference thread."""
        return self._transition("deactivate", self._deactivate)

    def on_cleanup(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Close the output topics and free the model."""
        return self._transition("cleanup", self._free)

    def on_shutdown(self, state: LifecycleState) -> TransitionCallbackReturn:
        """Everything down, from any state."""
        return self._transition("shutdown", self._shut_down)

    def on_error(self, state: LifecycleState) -> TransitionCallbackReturn:
        """After a failed transition: back to unconfigured."""
        return self._transition("recover", self._shut_down)

    def start(self) -> bool:
        """Configure and activate; False when one of them failed (the reason is logged)."""
        return self.trigger_configure() is SUCCESS and self.trigger_activate() is SUCCESS

    def stop(self, timeout: float) -> bool:
        """End of the process: everything down without waiting longer than `timeout` seconds; False
        when a step is still in progress."""
        worker, publishers = self._worker, self._publishers_out
        ended = worker is None or worker.stop(timeout)
        if ended:
            self._shut_down()
            self.destroy_node()
        elif publishers is not None:
            publishers.stop()
        return ended

    def _transition(
        self, name: str, work: Callable[[], None], undo: Callable[[], None] = lambda: None
    ) -> TransitionCallbackReturn:
        """Do the work of a transition; where it fails, say why and `undo` the part that is done."""
        try:
            work()
        except Exception as error:
            kind = "" if isinstance(error, Flow3rError) else f"{type(error).__name__}: "
            self.get_logger().error(f"cannot {name}: {kind}{error}")
            undo()
            return FAILURE
        return SUCCESS

    def _configure(self) -> None:
        self._loaded = self._load(self.config)
        self._publishers_out = Publishers(
            self,
            self.config,
            self._extrinsics,
            self._loaded.run_status,
            self._on_published,
            self._trail.clear,
            self.say,
        )
        loaded = self._loaded
        self.get_logger().info(
            f"model {loaded.model} on {loaded.device}; licence of its weights: "
            f"{loaded.weights_license}"
        )

    def _activate(self) -> None:
        assert self._loaded is not None
        assert self._publishers_out is not None
        self.say.forget()
        self._reporting.restart()
        self._loaded.engine.reset()
        self._publishers_out.restart()
        if self._loaded.flow is not None:
            self._loaded.flow.connect(
                self._publishers_out.flow_wanted, self._publishers_out.deliver_flow
            )
        self._worker = Worker(
            self._loaded.engine, self._publishers_out.deliver, self._complain, self._most_images,
            self._publishers_out.depth_wanted,
        )  # fmt: skip
        settings = self.config.node
        self._framing = Framing(
            settings,
            self.resolve_topic_name("image"),
            self._info_announced,
            self.say,
            self.say.inform,
        )
        topic, type_name = image_input(self, settings.image_transport)
        self._open(
            "camera_info", "sensor_msgs/msg/CameraInfo", "auto", self._on_info
        )  # first, so that it is served before its image
        self._open(topic, type_name, settings.image_qos, self._on_image)
        self._side_inputs = SideInputs(
            self,
            self.config,
            self._sensors,
            self._worker,
            self._loaded.engine,
            self._framing,
            self._static,
            self.say,
        )
        self._timers_active = [
            self.create_timer(FOLLOW_PERIOD_S, self._follow, clock=STEADY),
            self.create_timer(settings.map_period, self._publish_map, clock=STEADY),
            self.create_timer(heap.PERIOD_S, heap.give_back, clock=STEADY),
        ]
        self._bond.form()

    def _open(
        self, topic: str, type_name: str, fixed_qos: str, receive: Callable[[Any, float], None]
    ) -> None:
        lost = self._reporting.lost if receive == self._on_image else lambda count: None
        depth = qos.IMAGE_DEPTH if receive == self._on_image else qos.SIDE_DEPTH
        self._inputs.append(
            Input(self, topic, type_name, depth, fixed_qos, self._sensors, receive, lost, self.say)
        )

    def _follow(self) -> None:
        for source in self._inputs:
            source.follow()
        if self._side_inputs is not None:
            self._side_inputs.follow()

    def _deactivate(self) -> None:
        self._bond.end()
        for timer in self._timers_active:
            self.destroy_timer(timer)
        for source in self._inputs:
            source.close()
        if self._side_inputs is not None:
            self._side_inputs.close()
        self._timers_active, self._inputs, self._side_inputs = [], [], None
        worker, self._worker, self._framing = self._worker, None, None
        if worker is None or self._loaded is None:
            return
        if worker.stop(STEP_TIMEOUT_S):
            self._loaded.engine.reset()
        else:
            self.get_logger().warning(
                "the step in progress does not end; its thread is left behind"
            )

    def _free(self) -> None:
        if self._publishers_out is not None:
            self._publishers_out.stop()
        if self._loaded is not None:
            self._loaded.free()
        self._publishers_out = self._loaded = None
        gc.collect()  # parts of an engine know each other; their threads and memory go now
        heap.give_back()

    def _shut_down(self) -> None:
        self._deactivate()
        self._free()

    # --- sensors ----------------------------------------------------------------------------------

    def _on_image(self, message: Any, received_at: float) -> None:
        worker, framing = self._worker, self._framing
        if worker is None or framing is None:
            return
        received_ns = int(self.get_clock().now().nanoseconds)
        self._reporting.received(message, received_ns)
        if self._side_inputs is not None:
            self._side_inputs.saw_image(framing.optical_frame_of(message))
        worker.put(
            lambda frame_id: framing.frame(message, frame_id, received_at, received_ns),
            received_at,
        )

    def _most_images(self) -> float:
        """Images a second worth estimating, 0: all."""
        publishers = self._publishers_out
        listened = publishers is None or publishers.anybody_listens()
        return 0.0 if listened else self.config.node.idle_rate

    def _on_info(self, message: Any, received_at: float) -> None:
        if self._framing is not None:
            self._framing.take_info(message)

    def _info_announced(self) -> bool:
        return bool(self.count_publishers(self.resolve_topic_name("camera_info")))

    def _extrinsics(self, optical_frame: str) -> Float64 | None:
        return self._static.lookup(self.config.node.base_frame, optical_frame)

    # --- results ----------------------------------------------------------------------------------

    def _on_published(self, outcome: Outcome, age_ms: float) -> None:
        self._reporting.health.note(outcome, age_ms)
        self._trail.add(outcome.estimate)

    def _publish_map(self) -> None:
        active = self._active()
        if active is None or not active.publishers.map_wanted():
            return

        def snapshot() -> None:
            points = active.map_points()
            if points is not None:
                active.publishers.deliver_map(points)

        active.worker.post(snapshot)

    def _complain(self, key: str, text: str) -> None:
        """A frame was dropped or a new segment begins; drops are said once per reason, segments
        always."""
        if key == "segment":
            self.get_logger().warning(NEW_SEGMENT % text)
            if self._publishers_out is not None:
                self._publishers_out.restart()
        else:
            self.say(
                f"drop {key}", f"image dropped ({key}): {text} (said once, counted in ~/status)"
            )

    def _parts(self) -> Parts:
        return self._state_machine.current_state[1], self._loaded, self._worker, self._framing

    def _active(self) -> Active | None:
        if (
            self._loaded is None
            or self._publishers_out is None
            or self._worker is None
            or self._framing is None
        ):
            return None
        return Active(self._loaded, self._publishers_out, self._worker, self._framing)

    def _on_parameters(self, parameters: list[Parameter]) -> SetParametersResult:
        unconfigured = self._state_machine.current_state[1] == "unconfigured"
        return apply_changes(self.config, parameters, unconfigured)
