"""The runs behind an exported LeRobot dataset: one for each recording or episode, made, or taken
from where they lie."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from flow3r_ros.config import Config, ModelSettings
from flow3r_ros.errors import InputError
from flow3r_ros.offline.lerobot_rows import RunRows, read_run
from flow3r_ros.offline.run import run_to_folder
from flow3r_ros.report.page import RECORD_FILE
from flow3r_ros.types import Predictor


@dataclass(frozen=True)
class ExportOptions:
    """How recordings are run and written.

    `camera` is a camera.json for all of them; `topic` the camera where there are several; `runs`
    keeps the run folders, and those that lie there already are taken as they are; `depth` writes
    depth too; `task` is what the episodes of a new dataset are about.
    """

    settings: Config
    open_predictor: Callable[[ModelSettings], Predictor]
    topic: str | None = None
    camera: Path | None = None
    runs: Path = Path()
    depth: bool = True
    task: str = "look around"
    quiet: bool = False
    max_frames: int | None = None


@dataclass
class ExportReport:
    """What was written; `failed`: episode or recording -> why it has no estimates."""

    episodes: int = 0
    frames: int = 0
    frames_with_pose: int = 0
    features: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def note(self, text: str) -> None:
        """Say something once."""
        if text not in self.notes:
            self.notes.append(text)

    def note_lenses(self, runs: Sequence[RunRows]) -> None:
        """Say so where one camera was found to have several focal lengths."""
        found = [run.record.summary.get("camera", {}).get("fx") for run in runs]
        lengths = [float(fx) for fx in found if fx]
        if lengths and max(lengths) > 1.01 * min(lengths):
            self.note(
                f"the focal length was found for each episode apart, {min(lengths):.0f} to "
                f"{max(lengths):.0f} pixels: give --camera camera.json where the camera is one"
            )


def is_run(folder: Path) -> bool:
    """Whether a folder is the output of `flow3r run`."""
    return (folder / RECORD_FILE).is_file()


def run_of(source: Path, name: str, options: ExportOptions, episode: int | None = None) -> RunRows:
    """The run of a recording: itself where it is one, the one kept as `name` under `options.runs`,
    or a new one there.

    Raises:
        InputError: what is kept there is the run of something else.
        Flow3rError: it cannot be run, or its folder cannot be read.
    """
    if is_run(source):
        return read_run(source)
    folder = options.runs / name
    if is_run(folder):
        kept = read_run(folder)
        known = kept.record.settings
        if (known.get("input"), known.get("episode")) != (str(source), episode):
            raise InputError(
                f"{folder}: is a run of {known.get('input')}, not of {source}",
                "give another --runs",
            )
        return kept
    run_to_folder(
        source,
        folder,
        options.settings,
        options.open_predictor,
        camera_file=options.camera,
        topic=options.topic,
        max_frames=options.max_frames,
        quiet=options.quiet,
        resume=False,
        episode=episode,
    )
    return read_run(folder)


def opened_once(
    open_predictor: Callable[[ModelSettings], Predictor],
) -> Callable[[ModelSettings], Predictor]:
    """The same predictor for every run: its weights are loaded once."""
    opened: list[Predictor] = []

    def give(settings: ModelSettings) -> Predictor:
        if not opened:
            opened.append(open_predictor(settings))
        opened[0].reset()
        return opened[0]

    return give
