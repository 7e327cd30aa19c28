"""The node as a process: what is wrong at its start, signals, the program of the command line."""

from __future__ import annotations

import signal
import time

import numpy as np
import pytest

from test.ros.harness import Client, stamp_of
from test.ros.node_process import ROOT, NodeProcess, fresh_domain


@pytest.mark.parametrize(
    ("argument", "words"),
    [
        ("engine.window:=100", "engine.window"),
        ("engine.window:=many", "engine.window"),
        ("node.map_period:=0.0", "node.map_period"),
        ("scale.factor:=2", "write 2.0"),
        ("node.odom_frame:=''", "at least 1 character"),
        ("obstacles.min_height:=3.0", "obstacles.min_height (3.0) must be less than obstacles.max"),
        ("node.base_frame:=odom", "node.odom_frame and node.base_frame are both 'odom'"),
        ("autostart:=7", "'autostart' to '7'"),
        ("use_sim_time:=perhaps", "'use_sim_time' to 'perhaps'"),
    ],
)
def test_a_wrong_value_at_start_is_one_line_and_exit_1(argument, words):
    _one_line(words, "-p", argument)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--params-file", "/nowhere.yaml"), "Error opening YAML file"),
        (("-r", "__ns:=bad!name"), "bad!name"),
        (("--unheard-of",), "--unheard-of"),
    ],
)
def test_arguments_that_ros_refuses_are_one_line_and_exit_1(arguments, words):
    _one_line(words, *arguments)


def _one_line(words, *arguments):
    """The node does not start, and says so in one line with these words."""
    with NodeProcess(fresh_domain(), *arguments) as process:
        assert process.ended() == 1
        lines = [line for line in process.output().splitlines() if line.startswith("flow3r: ")]
        assert len(lines) == 1
        assert words in lines[0]
        assert ".c:" not in lines[0], "no lines of other people's sources"
        assert "Traceback" not in process.output()


def test_an_unknown_model_is_one_line_and_exit_1():
    command = ("-m", "flow3r_ros.cli.main", "node")
    with NodeProcess(fresh_domain(), "-p", "model.name:=no_such_model", program=command) as process:
        assert process.ended() == 1
        assert "no_such_model: no such model" in process.output()
        assert "Traceback" not in process.output()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_process_cleanly(number):
    domain = fresh_domain()
    with (
        NodeProcess(
            domain, program=("-m", "test.ros.plane_node", "--step-seconds", "0.2")
        ) as process,
        Client(domain) as client,
    ):
        client.listen("~/status")
        client.connect_camera()
        client.play(5, period=0.05)
        process.process.send_signal(number)
        while process.process.poll() is None:  # also while the interpreter ends
            process.process.send_signal(number)
            time.sleep(0.002)
        assert process.ended() == 0
        assert "Traceback" not in process.output()
        assert "Exception" not in process.output()


def test_a_signal_does_not_wait_for_a_step_that_never_ends():
    domain = fresh_domain()
    with (
        NodeProcess(
            domain, program=("-m", "test.ros.plane_node", "--step-seconds", "100000")
        ) as process,
        Client(domain) as client,
    ):
        client.connect_camera()
        client.wait(
            lambda: client.play(1, period=0.1) and "the first step begins" in process.output(),
            20.0,
            "a step in progress",
        )
        assert process.stop() == 0
        assert "Traceback" not in process.output()


def test_a_signal_while_the_model_is_loading():
    domain = fresh_domain()
    with (
        NodeProcess(domain, program=("-m", "flow3r_ros.cli.main", "node")) as process,
        Client(domain) as client,
    ):
        client.wait(lambda: "flow3r" in client.node.get_node_names(), 30.0, "the node")
        assert process.stop() in (0, 1)
        assert "Traceback" not in process.output()


STUCK = """
import ctypes, os, signal, sys
from flow3r_ros.ros.node import Flow3rNode
from flow3r_ros.ros.process import main
from test.ros.plane_node import load
class Stuck(Flow3rNode):
    def __init__(self, load):
        if {signalled}:
            os.kill(os.getpid(), signal.SIGINT)
        print("coming up", flush=True)
        library, mutex = ctypes.PyDLL(None), ctypes.create_string_buffer(64)
        for _ in range({locks}):  # the second time it waits, without Python, as DDS does
            library.pthread_mutex_lock(mutex)
        super().__init__(load)
sys.exit(main([sys.executable], lambda config: load(config, 0.0), Stuck))
"""


@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGTERM, -signal.SIGTERM), (signal.SIGINT, -signal.SIGALRM)],
)
def test_a_node_that_dds_keeps_waiting_ends_on_a_signal(number, code):
    program = ("-c", STUCK.format(locks=2, signalled=False))
    with (
        NodeProcess(fresh_domain(), program=program) as process,
        Client(fresh_domain()) as client,
    ):
        client.wait(lambda: "coming up" in process.output(), 30.0, "the creation of the node")
        assert process.stop(number) == code


def test_a_signal_while_dds_comes_up_ends_the_process_cleanly():
    program = ("-c", STUCK.format(locks=1, signalled=True))
    with NodeProcess(fresh_domain(), program=program) as process:
        assert process.ended() == 0
        assert "Traceback" not in process.output()


def test_the_program_of_the_command_line_takes_the_shipped_parameters():
    domain = fresh_domain()
    command = ("-m", "flow3r_ros.cli.main", "node")
    with (
        NodeProcess(
            domain, "--params-file", str(ROOT / "config" / "node.yaml"), program=command
        ) as process,
        Client(domain) as client,
    ):
        if not (ROOT / "models" / "flow3r_nano" / "model.safetensors").exists():
            pytest.skip("the bundled model is not there yet")
        client.listen("~/status", "~/flow")
        client.connect_camera()
        client.play(2, lockstep="")
        client.wait_for("~/status", 1, 30.0)
        assert client.received["~/status"][0].model == "flow3r_nano"
        client.wait(
            lambda: client.play(1, period=0.1) and client.count("~/flow"), 30.0, "factored flow"
        )
        flow = client.received["~/flow"][0]
        vectors = np.array(flow.flow).reshape(flow.height, flow.width, 2)
        assert len(flow.covisibility) == flow.height * flow.width
        assert np.median(vectors[..., 0]) < 0, "the camera pans to the right"
        assert stamp_of(flow) < flow.target_stamp.sec * 10**9 + flow.target_stamp.nanosec
        assert process.stop() == 0
