"""The process around the node: start, spin, and end cleanly on SIGINT or SIGTERM within two
seconds."""

from __future__ import annotations

import ctypes
import logging
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence

import rclpy
from rclpy.exceptions import InvalidHandle, ParameterException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.signals import SignalHandlerOptions

from flow3r_ros.config import Config
from flow3r_ros.errors import Flow3rError
from flow3r_ros.ros.dds_profile import use_large_messages
from flow3r_ros.ros.loading import Loaded, load
from flow3r_ros.ros.node import Flow3rNode
from flow3r_ros.ros.once import ToRosLog

GRACE_S = 0.8
"""how long each part may take to end; then the process ends without it"""
MALLOC_ARENAS = 2
"""heaps of the C library; with its default of eight per core, every activation's new threads
settled in another one and 60 rounds of the lifecycle grew the process from 150 to 225 MB of freed
memory (measured on 2 cores); with two it stays at 180"""
_M_ARENA_MAX = -8
HEAR_S = 0.1
"""Python runs signal handlers in the main thread only, and a signal that lands in another thread
does not wake it: so it looks"""


def main(
    arguments: Sequence[str] | None = None,
    load_engine: Callable[[Config], Loaded] = load,
    kind: type[Flow3rNode] = Flow3rNode,
) -> int:
    """Run the node (a `kind` of it) until a signal; 0 after one, 1 when it could not start (one
    line on stderr says why).

    The executor spins in a thread of its own, so that this one always hears signals, also while a
    model is loading. Until DDS is up, `_bound_the_start` bounds what a signal waits for.
    """
    stop, failed = threading.Event(), threading.Event()

    def hear(*_: object) -> None:
        _on_signals(signal.SIG_IGN)  # the end is bounded, and a second Ctrl-C must not cut it short
        stop.set()

    _bound_the_start()
    _bound_malloc_arenas()
    use_large_messages()
    try:
        rclpy.init(
            args=sys.argv if arguments is None else list(arguments),
            signal_handler_options=SignalHandlerOptions.NO,
        )
        node = kind(load_engine)
    except (Flow3rError, ParameterException, RuntimeError) as error:  # the last: of rcl
        sys.stderr.write(f"flow3r: {_in_one_line(error)}\n")
        if rclpy.ok():
            rclpy.shutdown(uninstall_handlers=False)
        _on_signals(signal.SIG_IGN)
        return 1
    _on_signals(hear)
    if signal.alarm(0):
        stop.set()
    library_log = logging.getLogger("flow3r_ros")
    library_log.addHandler(ToRosLog(node.say))
    library_log.propagate = False
    spinning = threading.Thread(
        target=_spin, args=(node, stop, failed), name="flow3r_executor", daemon=True
    )
    spinning.start()
    while not stop.is_set():  # not stop.wait: `hear` would wait for the lock that it holds
        time.sleep(HEAR_S)
    spinning.join(GRACE_S)
    clean = node.stop(GRACE_S) and not spinning.is_alive()
    code = 1 if failed.is_set() else 0
    if not clean:  # a step or a model load in progress is not waited for
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    rclpy.try_shutdown()
    _on_signals(signal.SIG_IGN)  # also while the interpreter ends
    return code


def _in_one_line(error: Exception) -> str:
    """Why the node could not start; ROS says it with lines of its own sources behind."""
    if isinstance(error, Flow3rError):
        return str(error)
    what = re.sub(r",? at /[^\s,]+", "", str(error)).replace("\n", " ")
    return f"{type(error).__name__}: {what}; look at what stands after --ros-args"


def _on_signals(handler: Callable[..., None] | signal.Handlers) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _bound_the_start() -> None:
    """Let a signal end the process though DDS does not come up: while rclpy waits for it no Python
    runs, no handler either, and twice it waited for minutes (nodes had been killed before).

    SIGTERM does what it does by itself. SIGINT calls alarm(2) of the C library, which takes the
    signal's number for seconds: two seconds later SIGALRM ends the process, unless DDS is up by
    then and `main` calls it off and ends as always.
    """
    library = ctypes.CDLL(None)
    library.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    library.signal.restype = ctypes.c_void_p
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    library.signal(signal.SIGINT, ctypes.cast(library.alarm, ctypes.c_void_p))


def _bound_malloc_arenas() -> None:
    """Tell glibc (mallopt(3)) to share heaps between threads, unless the user has set
    `MALLOC_ARENA_MAX`; other C libraries have none."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None and "MALLOC_ARENA_MAX" not in os.environ:
        mallopt(_M_ARENA_MAX, MALLOC_ARENAS)


def _spin(node: Flow3rNode, stop: threading.Event, failed: threading.Event) -> None:
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        if node.autostart and not node.start():
            failed.set()
            return
        while not stop.is_set():
            try:
                executor.spin_once(timeout_sec=0.2)
            except InvalidHandle:  # an event of a subscription that a callback has just destroyed
                continue
    except ExternalShutdownException:
        return
    finally:
        stop.set()
        executor.shutdown(timeout_sec=GRACE_S)
