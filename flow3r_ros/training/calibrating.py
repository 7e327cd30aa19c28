"""The calibration curve of a trained network, from held-out clips: fitted on every other one,
checked on the rest.

`python -m flow3r_ros.training.calibrating MODEL --scenes HELD/full --clip CLIP` fits one curve for
rendered and real pictures, which count the same, and writes it into the model's manifest.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from flow3r_ros.errors import Flow3rError, TrainingError
from flow3r_ros.network.calibration import Calibration, calibration_error, fit_calibration
from flow3r_ros.network.catalog import find_model
from flow3r_ros.network.checkpoint import load_model, write_manifest
from flow3r_ros.network.model import Flow3r
from flow3r_ros.training.posed_clips import posed_windows
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scenes.shards import SceneShards
from flow3r_ros.training.validation import reliability
from flow3r_ros.types import Bool, Float32

logger = logging.getLogger(__name__)

LEAST_CLIPS = 4
"""labelled clips below which no curve is fitted"""


def calibrate(network: Flow3r, clips: Iterable[list[Sample]], where: str) -> Calibration | None:
    """The curve with its error on clips that it was not fitted on; None with fewer than
    `LEAST_CLIPS` labelled clips. `where` says what the clips are."""
    found = reliability(network, clips)
    if len(found) < LEAST_CLIPS:
        return None
    said, right = _joined(found[::2])
    other, truth = _joined(found[1::2])
    curve = fit_calibration(said, right)
    return curve.model_copy(
        update={
            "measured_on": f"{len(found)} clips of {where}: fitted on every other one, error on "
            "the rest",
            "error": round(calibration_error(curve.apply(other), truth), 4),
            "error_before": round(calibration_error(other, truth), 4),
        }
    )


def calibrate_both(
    network: Flow3r, scenes: Iterable[list[Sample]], real: Iterable[list[Sample]], where: str
) -> Calibration:
    """One curve for two kinds of clips, each of which weighs half: fitted on every other clip of
    each. Its errors are means of the two kinds' own, on the clips it was not fitted on.

    Raises TrainingError with fewer than `LEAST_CLIPS` labelled clips of a kind.
    """
    kinds = [reliability(network, clips) for clips in (scenes, real)]
    if min(map(len, kinds)) < LEAST_CLIPS:
        raise TrainingError(
            f"{len(kinds[0])} rendered and {len(kinds[1])} real clips",
            f"a curve needs {LEAST_CLIPS} of each",
        )
    fitted = [_joined(found[::2]) for found in kinds]
    most = max(len(said) for said, _ in fitted)
    chosen = [np.arange(most) * len(said) // most for said, _ in fitted]
    said, right = _joined(
        [(part[0][rows], part[1][rows]) for part, rows in zip(fitted, chosen, strict=True)]
    )
    curve = fit_calibration(said, right)
    rest = [_joined(found[1::2]) for found in kinds]
    after = [calibration_error(curve.apply(other), truth) for other, truth in rest]
    before = [calibration_error(other, truth) for other, truth in rest]
    errors = ", ".join(f"{value:.3f}" for value in after)
    return curve.model_copy(
        update={
            "measured_on": f"{len(kinds[0])} clips of {where}, {len(kinds[1])} windows: fitted on "
            f"every other one of each, errors on the rest {errors}",
            "error": round(float(np.mean(after)), 4),
            "error_before": round(float(np.mean(before)), 4),
        }
    )


def _joined(parts: Sequence[tuple[Float32, Bool]]) -> tuple[Float32, Bool]:
    return np.concatenate([said for said, _ in parts]), np.concatenate([ok for _, ok in parts])


def main() -> None:
    """Fit and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", help="name or folder")
    parser.add_argument("--scenes", type=Path, required=True, help="folder of held-out shards")
    parser.add_argument("--clip", type=Path, required=True, help="clip with true poses and depth")
    parser.add_argument("--first", type=int, default=0, help="its first frame that counts")
    parser.add_argument("--limit", type=int, default=48, help="rendered clips at most")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    folder = find_model(options.model)
    network = load_model(options.model)
    shards = SceneShards([options.scenes], seed=0, clips_per_step=1)
    grid = folder.manifest.input.resolution
    curve = calibrate_both(
        network,
        shards.all(options.limit),
        posed_windows(options.clip, grid, first=options.first),
        f"{options.scenes.name} and {options.clip.name} from frame {options.first}",
    )
    write_manifest(folder.path, folder.manifest.model_copy(update={"calibration": curve}))
    logger.info("%s: %s; %.3f before", folder.path, curve.measured_on, curve.error_before)


if __name__ == "__main__":
    try:
        main()
    except Flow3rError as error:
        sys.exit(f"flow3r: {error}")
