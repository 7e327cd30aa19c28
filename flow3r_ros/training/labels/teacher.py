"""What every flow teacher is: the interface, and what makes a pair or its weights unusable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from flow3r_ros.errors import TrainingError
from flow3r_ros.training.labels.clips import Clip, FlowLabel

MIN_COVISIBLE = 0.15
"""share of pixels below which the pair moved too far for the teacher"""
WHERE_OPTIONS = ("weights", "device", "license")
"""options of a teacher that say where its weights lie, what may be done with them and where it
runs: they change no label, and its identity holds the hash of the weights"""


def content_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that change a teacher's answers, also where they are given by teacher: what a
    label's address is made of, beside the identity."""
    return {
        name: content_options(value) if isinstance(value, Mapping) else value
        for name, value in options.items()
        if name not in WHERE_OPTIONS
    }


class FlowTeacher(Protocol):
    """The interface of every teacher."""

    name: str

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that changes the answer (settings, hash of the weights): part of the address
        of its labels."""
        ...

    def flow(self, clip: Clip, i: int, j: int) -> FlowLabel:
        """Flow from frame i to frame j of the clip on the teacher's grid; `reason` says why a pair
        is refused."""
        ...


def need_weights(teacher: str, weights: str | Path | None, where: str) -> Path:
    """The weights file a teacher was given. Raises TrainingError saying where to get it when there
    is none."""
    if weights is None or not Path(weights).exists():
        given = f"weights {weights} do not exist" if weights else "no weights were given"
        raise TrainingError(
            f"flow teacher {teacher}: {given}",
            f"download them yourself ({where}) and give --weights (teacher_options.weights)",
        )
    return Path(weights)
