"""`flow3r export lerobot`: what flow3r finds out, as a LeRobot dataset (v3).

A LeRobot dataset becomes a copy of itself with further features; videos, bags, image folders and
finished runs become a new dataset, one episode each.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from flow3r_ros.datasets.identify import identify
from flow3r_ros.datasets.lerobot import open_lerobot
from flow3r_ros.errors import InputError, OutputError
from flow3r_ros.offline.lerobot_copy import annotate
from flow3r_ros.offline.lerobot_new import write_new
from flow3r_ros.offline.lerobot_runs import ExportOptions, ExportReport, is_run, opened_once
from flow3r_ros.paths import OutputFolder


def export(
    inputs: Sequence[Path], output: Path, options: ExportOptions, runs: Path | None = None
) -> ExportReport:
    """Run what has to be run, and write the dataset `output`, which appears complete or not at all.

    Run folders are kept in `runs` where it is given, and those that lie there already are used. An
    episode of a dataset that cannot be run keeps its rows, without estimates; a recording that
    cannot is left out. Raises InputError when the inputs do not fit together or none could be run,
    OutputError as `paths.OutputFolder`.
    """
    datasets = [path for path in inputs if not is_run(path) and identify(path).kind == "lerobot"]
    if datasets and len(inputs) > 1:
        raise InputError(
            f"{datasets[0]}: is a LeRobot dataset", "give it alone: the output is a copy of it"
        )
    if datasets and output.absolute().is_relative_to(datasets[0].absolute()):
        raise OutputError(f"{output}: lies inside the dataset", "choose an --output outside of it")
    with ExitStack() as stack:
        folder = stack.enter_context(OutputFolder(output))
        kept = runs or Path(stack.enter_context(TemporaryDirectory(prefix="flow3r-runs-")))
        options = replace(options, runs=kept, open_predictor=opened_once(options.open_predictor))
        if datasets:
            return annotate(open_lerobot(datasets[0]), folder.path, options)
        return write_new(inputs, folder.path, options)
