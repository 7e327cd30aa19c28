"""The surroundings of one measurement of the node: processes in a DDS domain of their own, and a
listener in this process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import numpy as np
import rclpy
from rclpy.context import Context
from rclpy.exceptions import InvalidHandle
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.qos import DurabilityPolicy, QoSProfile
from rclpy.subscription import Subscription

from flow3r_ros.errors import EvaluationError
from flow3r_ros.ros.dds_profile import VARIABLES, profile_path
from flow3r_ros.ros.messages import class_of
from flow3r_ros.wire.outputs import TOPICS

DIAGNOSTICS_WITHIN_S = 20.0
_PROGRAM = (sys.executable, "-m", "flow3r_ros.bench.nodes")
_NODES = {
    "ours": (*_PROGRAM, "ours"),
    "plain": (*_PROGRAM, "plain"),
    "shipped": (sys.executable, "-m", "flow3r_ros.cli", "node"),
}
"""what can be started: our node and a straightforward one with an engine that takes no time, and
the node as it is"""
TICK = os.sysconf("SC_CLK_TCK")


class NodeProcess:
    """A node process; `times()` are the milliseconds it printed."""

    def __init__(self, process: subprocess.Popen[str], output: IO[str]) -> None:
        self._process, self._output = process, output
        self.pid = process.pid

    def end(self) -> None:
        """SIGINT, and wait."""
        self._process.send_signal(signal.SIGINT)
        self._process.wait(10)

    def must_run(self) -> None:
        """Raises EvaluationError when it has ended."""
        if self._process.poll() is not None:
            raise EvaluationError(
                f"the node under measurement ended with exit code {self._process.returncode}",
                "start flow3r node by hand to see why",
            )

    def times(self) -> list[float]:
        """One number for every image, in order."""
        self._output.seek(0)
        return [float(line) for line in self._output.read().split()]

    def cpu_s(self) -> float:
        """Seconds of CPU that all its threads took so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def resident_mb(self) -> float:
        """Its resident memory."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


class World:
    """Starts nodes and cameras; listens to `/diagnostics`."""

    def __init__(self, environment: dict[str, str], context: Context) -> None:
        self._environment = environment
        self._node = rclpy.create_node("bench", context=context)
        self._executor = SingleThreadedExecutor(context=context)
        self._executor.add_node(self._node)
        self._changed = threading.Condition()
        self._rounds = 0
        self._values: dict[str, str] = {}
        self._node.create_subscription(
            class_of("diagnostic_msgs/msg/DiagnosticArray"),
            "/diagnostics",
            self._on_diagnostics,
            10,
        )
        threading.Thread(target=self._spin, daemon=True).start()

    @contextmanager
    def start(self, kind: str, namespace: str) -> Iterator[NodeProcess]:
        """A node process, killed at the end if it still runs."""
        with tempfile.TemporaryFile("w+") as output:
            command = [*_NODES[kind], "--ros-args", "-r", f"__ns:={namespace}"]
            process = subprocess.Popen(
                command, env=self._environment, stdout=output, stderr=subprocess.DEVNULL, text=True
            )
            try:
                yield NodeProcess(process, output)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()

    def listen_to_everything(self, namespace: str) -> None:
        """Subscribe to every output of a node; the bytes are taken and thrown away."""
        for topic in TOPICS:
            self.listen(namespace, topic)

    def listen(
        self, namespace: str, topic: str, heard: Callable[[bytes], None] = lambda data: None
    ) -> Subscription:
        """Subscribe to one output of a node; `heard` gets the bytes."""
        durability = (
            DurabilityPolicy.TRANSIENT_LOCAL if topic == "~/map" else DurabilityPolicy.VOLATILE
        )
        return self._node.create_subscription(
            class_of(TOPICS[topic]),
            topic.replace("~", f"{namespace}/flow3r"),
            heard,
            QoSProfile(depth=5, durability=durability),
            raw=True,
        )

    def forget(self, subscription: Subscription) -> None:
        """Listen to it no longer."""
        self._node.destroy_subscription(subscription)

    @contextmanager
    def camera(self, clip: Path, frames: int, namespace: str) -> Iterator[Callable[[float], None]]:
        """A process that plays the first `frames` of a clip to and fro; gives a function that sets
        images a second (0 at first)."""
        program = (sys.executable, "-m", "flow3r_ros.bench.clip_camera")
        command = [*program, str(clip), str(frames), namespace]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "text": True, "bufsize": 1}
        with subprocess.Popen(command, env=self._environment, **pipes) as process:
            assert process.stdin is not None
            write = process.stdin.write
            try:
                yield lambda rate: (write(f"{rate}\n"), None)[1]
            finally:
                process.kill()

    def play(self, frames: int, rate: float, reliability: str, *namespaces: str) -> tuple[int, ...]:
        """A camera process serves the namespaces in turn, until a round of diagnostics after the
        last image.

        Returns how many images the last of the nodes had received, estimated and dropped before the
        first that counts.
        """
        command = [*_PROGRAM, "camera", str(frames), str(rate), reliability, *namespaces]
        pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(command, env=self._environment, **pipes) as process:
            assert process.stdout is not None
            try:
                first, last = process.stdout.readline(), process.stdout.readline()
                if last != "sent\n":
                    raise EvaluationError(
                        "the camera of the node suite has failed", "its error stands above"
                    )
                self.diagnostics()
                process.communicate(timeout=10 * DIAGNOSTICS_WITHIN_S)
            finally:
                process.kill()
        return tuple(int(count) for count in first.split())

    def diagnostics(self, rounds: int = 2) -> dict[str, str]:
        """The values some rounds on; the next but one was surely made after the call."""
        with self._changed:
            wanted = self._rounds + rounds
            if not self._changed.wait_for(lambda: self._rounds >= wanted, DIAGNOSTICS_WITHIN_S):
                raise EvaluationError("the node under measurement gives no diagnostics")
            return self._values

    def _on_diagnostics(self, message: Any) -> None:
        with self._changed:
            self._values = {pair.key: pair.value for pair in message.status[0].values}
            self._rounds += 1
            self._changed.notify_all()

    def _spin(self) -> None:
        while self._executor.context.ok():
            try:
                self._executor.spin_once(timeout_sec=0.2)
            except InvalidHandle:  # of a subscription that `forget` has just destroyed
                continue
            except ExternalShutdownException:
                return


@contextmanager
def world(with_profile: bool = True) -> Iterator[World]:
    """A DDS domain with or without the profile for large messages; `none.xml` keeps our node from
    taking it by itself."""
    domain = int(np.random.default_rng().integers(60, 100))
    environment = os.environ | {
        "ROS_DOMAIN_ID": str(domain),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    with tempfile.TemporaryDirectory() as folder:
        none = Path(folder) / "none.xml"
        unused = (
            "<participant "
            'profile_name="unused"><rtps></rtps></participant>'
        )  # Fast DDS complains on stdout when there is none
        none.write_text(
            "<profiles "
            f'xmlns="http://www.eprosima.com/XMLSchemas/fastRTPS_Profiles">{unused}</profiles>\n'
        )
        profile = profile_path() if with_profile else none
        environment |= dict.fromkeys(VARIABLES, str(profile or none))
        before = {
            name: os.environ.get(name) for name in (*VARIABLES, "ROS_AUTOMATIC_DISCOVERY_RANGE")
        }
        os.environ.update({name: environment[name] for name in before})
        context = Context()
        rclpy.init(context=context, domain_id=domain)
        try:
            yield World(environment, context)
        finally:
            rclpy.try_shutdown(context=context)
            for name, value in before.items():
                if value is None:
                    os.environ.pop(name, None)
                else:
                    os.environ[name] = value
