"""Long runs lose nothing: a run that is interrupted, killed, or fills the disk is gone on with.

While it works, a run writes from time to time what it remembers (the engine, the numbers of its
record, the lengths of its files) into `flow3r_resume/` of its hidden folder. What goes on from
there reads the input up to that frame again and gives the same bytes as a run that was never
stopped (`test/offline/test_resume.py`).

The state is pickled. An output folder may come from elsewhere, so it is read by an unpickler that
makes plain data and those of our own classes that only hold something, and calls nothing else.
"""

from __future__ import annotations

import io
import json
import logging
import pickle
import shutil
import signal
import threading
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from time import monotonic
from types import FrameType, TracebackType
from typing import Any, Literal

from flow3r_ros import __version__
from flow3r_ros.errors import Flow3rError, OutputError
from flow3r_ros.paths import RESUME, write_atomically

log = logging.getLogger(__name__)

PERIOD_S = 10.0
"""shortest time between two checkpoints"""
SHARE = 0.02
"""largest share of the time that checkpoints may take"""

STATE, BEFORE, IDENTITY = "state", "state_before", "run.json"
"""files of `RESUME`: the newest state, the one before it, and what both belong to"""
OnInterrupt = Literal["keep", "discard"]
"""what becomes of a run that is interrupted"""

_OURS = (
    "types",
    "config",
    "geometry",
    "odometry",
    "offline.drive",
    "report.history",
    "report.record",
    "report.row",
    "slam.frames",
    "slam.graph",
    "slam.keyframe",
    "slam.loops",
    "slam.map",
    "slam.pictures",
    "slam.places",
    "slam.saved",
    "slam.store",
    "wire.path",
)
"""rooms and modules whose classes hold what is remembered: none of them writes a file"""
_PLAIN = {
    "array": ("array", "_array_reconstructor"),
    "builtins": ("set", "frozenset", "slice", "complex", "range", "bytearray"),
    "collections": ("Counter", "deque", "OrderedDict", "defaultdict"),
    "numpy": ("ndarray", "dtype"),
    "numpy._core.multiarray": ("_reconstruct", "scalar"),
    "numpy._core.numeric": ("_frombuffer",),
}


class Keeper:
    """Decides what stays of the work in `folder` when it is interrupted; a context manager around
    it.

    Args:
        identity: what has to be the same for a resumed run: input, options, settings, weights.
        on_interrupt: with discard nothing is kept, and signals do what they did before.

    `state` is what there is to remember, as objects that pickle; None where the work cannot be gone
    on with. `changes` counts what no older state survives. `stopped` names the signal that ended
    the work early.
    """

    def __init__(
        self, folder: Path, identity: Mapping[str, Any], on_interrupt: OnInterrupt
    ) -> None:
        self.state: Callable[[], Mapping[str, Any]] | None = None
        self.changes: Callable[[], int] = int
        self.stopped = ""
        self._keep = on_interrupt == "keep"
        self._folder = folder / RESUME
        self._identity = {"version": __version__, **identity}
        self._next = monotonic() + PERIOD_S
        self._seen = 0
        self._signals = _Signals(self._keep)

    def __enter__(self) -> Keeper:
        self._signals.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._signals.__exit__()
        left = any((self._folder / name).exists() for name in (STATE, BEFORE))
        if kind is not None and left:
            log.warning("what was done so far is kept: repeat the command with --resume")

    def stop(self, events: int) -> bool:
        """Asked after each event of the source: whether to end here. Writes the state from time to
        time, and at the end. Raises OutputError when the disk is full."""
        if not self._keep:
            return False
        due = monotonic() >= self._next or self._seen != self.changes()
        if self.state is not None and (due or self._signals.asked):
            self._write(events, self.state)
        self.stopped = self._signals.asked
        return bool(self.stopped)

    def finished(self) -> None:
        """The folder is complete: what was kept to go on goes, unless the work was stopped."""
        if not self.stopped:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _write(self, events: int, state: Callable[[], Mapping[str, Any]]) -> None:
        begun = monotonic()
        self._seen, self._next = self.changes(), begun + PERIOD_S
        buffer = io.BytesIO()
        try:
            pickle.dump({"events": events, **state()}, buffer, protocol=5)
        except Exception as error:  # a back end that failed, or a part that does not pickle
            log.warning("the state at event %d is not kept (%s)", events, error)
            return
        identity = json.dumps(self._identity, indent=1, default=str) + "\n"
        if (self._folder / STATE).exists():
            (self._folder / STATE).replace(self._folder / BEFORE)
        write_atomically(self._folder / STATE, buffer.getvalue())
        write_atomically(self._folder / IDENTITY, identity.encode())
        now = monotonic()
        self._next = now + max(PERIOD_S, (now - begun) / SHARE)


def load_state(
    folder: Path,
    identity: Mapping[str, Any],
    fits: Callable[[Mapping[str, Any]], bool] = lambda _: True,
) -> dict[str, Any]:
    """The newest state of interrupted work that `fits` what lies in its folder. Raises OutputError
    naming what is not the same any more, or that the state is damaged."""
    try:
        known = json.loads((folder / RESUME / IDENTITY).read_text(encoding="utf-8"))
        asked = json.loads(json.dumps({"version": __version__, **identity}, default=str))
        changed = _changed(known, asked)
    except (OSError, ValueError, AttributeError) as error:
        raise OutputError(f"{folder}: cannot be resumed ({error})", "use --restart") from error
    if changed:
        raise OutputError(
            f"{folder}: was interrupted with another {', '.join(changed)}",
            "repeat the command as it was, or begin anew with --restart",
        )
    why = "no state fits its files"
    for path in (folder / RESUME / STATE, folder / RESUME / BEFORE):
        try:
            with path.open("rb") as file:
                state = dict(_Unpickler(file).load())
            if fits(state):
                return state
        except Exception as error:  # a damaged or hostile pickle raises anything
            why = f"its state is damaged ({error})" if path.name == STATE else why
    raise OutputError(f"{folder}: {why}", "begin anew with --restart")


class _Signals:
    """Ctrl-C and SIGTERM ask once and are obeyed at once when they come again.

    `asked` is the name of what came, empty while nothing did. Without `catch`, and outside the main
    thread, the signals do what they did before.
    """

    def __init__(self, catch: bool) -> None:
        self.asked = ""
        self._catch = catch and threading.current_thread() is threading.main_thread()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> _Signals:
        if self._catch:
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, number: int, _: FrameType | None) -> None:
        self.asked = "Ctrl-C" if number == signal.SIGINT else signal.Signals(number).name
        log.warning("%s: what was done is finished and kept; again: at once", self.asked)
        signal.signal(number, signal.default_int_handler)


class _Unpickler(pickle.Unpickler):
    """Plain data, arrays, and those of our own classes that only hold something."""

    def find_class(self, module: str, name: str) -> Any:
        if name in _PLAIN.get(module, ()):
            return getattr(import_module(module), name)
        package, _, rest = module.partition(".")
        if package == "flow3r_ros" and f"{rest}.".startswith(tuple(f"{each}." for each in _OURS)):
            found = getattr(import_module(module), name, None)
            if isinstance(found, type) and found.__module__ == module:
                return found
        raise Flow3rError(f"it wants {module}.{name}")


def _changed(known: Mapping[str, Any], asked: Mapping[str, Any], where: str = "") -> list[str]:
    """Names of what differs, groups by their members."""
    names: list[str] = []
    for key in sorted({*known, *asked}):
        one, other = known.get(key), asked.get(key)
        if isinstance(one, dict) and isinstance(other, dict):
            names += _changed(one, other, f"{where}{key}.")
        elif one != other:
            names.append(f"{where}{key}")
    return names
