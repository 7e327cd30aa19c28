"""`make scoreboard`: every clip, every contender, every benchmark that is present, measured and
written to docs/results.md.

An interrupted scoreboard goes on where it stopped, since each result is kept the moment it is
there; what fails is a row of the page. Run: `python -m flow3r_ros.evaluation.scoreboard --clips
../shared/video [--checkpoint NAME ...] [--benchmark sintel=DIR ...]`.
"""

from __future__ import annotations

import argparse
import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from flow3r_ros.errors import EvaluationError, Flow3rError
from flow3r_ros.evaluation.clip_runs import (
    CLASSICAL,
    ODOMETRY_SOURCES,
    Clip,
    Contender,
    find_clips,
    run_clip,
    write_json,
)
from flow3r_ros.evaluation.faults_clips import LEAST
from flow3r_ros.evaluation.machine import fingerprint
from flow3r_ros.evaluation.scoreboard_page import write_page
from flow3r_ros.evaluation.scoreboard_tables import Board
from flow3r_ros.evaluation.scoreboard_trust import trust_sections

log = logging.getLogger(__name__)
COMMAND_SOURCES = (
    "training",
    "evaluation/benchmarks",
    "evaluation/trajectory.py",
    "evaluation/angular.py",
    "evaluation/pointmap.py",
)
"""what further decides the answers of the commands that are asked"""
TRUST_SOURCES = (
    "bench/faults.py",
    "bench/consistency.py",
    "training/scenes",
    *(f"evaluation/{name}.py" for name in ("faults", "faults_clips", "faults_network")),
    *(f"evaluation/{name}.py" for name in ("claims", "consistency", "calibration")),
)
"""what further decides the answers of the suites faults and rooms"""
STARTS = (0, 2, 4, 6, 8)
"""frames that are left out at the beginning, to see how far a score scatters"""
SHORT = 150
"""frames up to which a clip with truth is run from every start"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure what is missing, then write the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--clips",
        type=Path,
        nargs="+",
        default=[Path("../shared/video"), Path("demo")],
        help="folders of clips",
    )
    parser.add_argument("--only", nargs="*", default=None, help="names of clips; default: all")
    parser.add_argument("--model", default="flow3r_nano")
    parser.add_argument(
        "--checkpoint",
        action="append",
        metavar="NAME_OR_PATH",
        help="another model of the same architecture (pi3, say) as a contender; repeat for "
        "several; default: all that are here",
    )
    parser.add_argument(
        "--max-frames",
        type=int,
        default=None,
        help="stop every clip after so many frames; the page says so",
    )
    parser.add_argument(
        "--benchmark",
        action="append",
        default=[],
        metavar="NAME=DIR",
        help="also score a benchmark; repeat for several",
    )
    parser.add_argument("--output", type=Path, default=Path("docs/results.md"))
    parser.add_argument("--cache", type=Path, default=Path(".cache/scoreboard"))
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    clips = [clip for root in options.clips if root.is_dir() for clip in find_clips(root)]
    clips = [clip for clip in clips if options.only is None or clip.name in options.only]
    if not clips:
        raise EvaluationError(
            f"no clip below {', '.join(map(str, options.clips))}",
            "give folders of clips with --clips",
        )
    models = [
        options.model,
        *(other_models(options.model) if options.checkpoint is None else options.checkpoint),
    ]
    contenders = [*map(contender_of, models), CLASSICAL]
    if len({contender.key for contender in contenders}) < len(contenders):
        raise EvaluationError(
            f"two of the models {', '.join(models)} have the same name", "rename a folder"
        )
    folder = options.cache.resolve()
    board = Board(clips, contenders, models, options.max_frames)
    measure_clips(board, folder)
    scenes = folder / f"scenes-{fingerprint(('geometry', 'training'))}"
    for model in models:
        board.scenes[model] = ask(
            folder, "evaluate", "scenes", "--data", str(scenes), "--model", model
        )
        for pair in options.benchmark:
            name, _, data = pair.partition("=")
            board.benchmarks[pair, model] = ask(
                folder, "evaluate", "benchmark", name, "--data", data, "--model", model
            )
    asked = {suite: ask_suite(folder, suite, board) for suite in ("faults", "rooms")}
    trust = trust_sections(
        board.clips, contenders[0], board.results, asked["faults"], asked["rooms"]
    )
    write_page(options.output, board, trust)
    log.info("wrote %s", options.output)


def other_models(scored: str) -> list[str]:
    """The other models whose weights are here, by name, as `flow3r models list` knows them."""
    listed, mine = _flow3r("models", "list").get("models", []), model_info(scored).get("path")
    return [
        Path(entry["path"]).name for entry in listed if entry["weights"] and entry["path"] != mine
    ]


def contender_of(model: str) -> Contender:
    """The odometry with a model."""
    name = Path(model).name
    return Contender(f"{name}-odometry", name, model, model_info(model).get("weights"))


def measure_clips(board: Board, folder: Path) -> None:
    """Fill in every contender on every clip, one after the other, since the speed of each is
    reported; and on short clips with truth the first contender and the classical odometry from
    later starts."""
    words = {contender.key: contender.fingerprint() for contender in board.contenders}
    whole = [(clip, contender, 0) for clip in board.clips for contender in board.contenders]
    later = [
        (clip, contender, start)
        for clip in board.clips
        if clip.truth and _frames(clip) <= SHORT
        for contender in (board.contenders[0], CLASSICAL)
        for start in STARTS[1:]
    ]
    for number, (clip, contender, start) in enumerate([*whole, *later], start=1):
        result = run_clip(clip, contender, folder, words[contender.key], board.max_frames, start)
        board.results[clip.name, contender.key, start] = result
        outcome = (
            result.get("error")
            or f"{result['frames']} frames, {result['summary']['fps']:.3g} a second"
        )
        log.info(
            "%d of %d: %s from frame %d, %s: %s",
            number,
            len(whole) + len(later),
            clip.name,
            start,
            contender.title,
            outcome,
        )


@cache
def model_info(model: str) -> dict[str, Any]:
    """What `flow3r models info` says of a model; an `error` where there is none of that name."""
    return _flow3r("models", "info", model)


def ask_suite(folder: Path, suite: str, board: Board) -> dict[str, Any]:
    """What `flow3r bench --suite faults` (on the clips with truth that are long enough, and the
    longest one without) or `rooms` says of the first model; nothing where the clips are cut
    short."""
    if board.max_frames:
        return {"error": "the clips of this page are cut short"}
    clips: list[str] = []
    if suite == "faults":
        long = [clip for clip in board.clips if _frames(clip) >= LEAST and not clip.static]
        bare = sorted((clip for clip in long if not clip.truth), key=_frames)
        chosen = [clip for clip in long if clip.truth] + bare[-1:]
        if len(chosen) < 2:
            return {"error": f"no two clips have {LEAST} frames"}
        clips = [word for clip in chosen for word in ("--clip", str(clip.path))]
    command = ("bench", "--suite", suite, *clips, "--model", board.models[0])
    return ask(folder, *command, sources=TRUST_SOURCES)


def ask(folder: Path, *command: str, sources: Sequence[str] = COMMAND_SOURCES) -> dict[str, Any]:
    """What a `flow3r` command says whose last word is the model, from the cache or asked now; a
    failure is an answer too, under the key `error`, but it is not kept."""
    weights = model_info(command[-1]).get("weights")
    word = fingerprint(
        (*ODOMETRY_SOURCES, *sources), [Path(weights)] if weights else [], " ".join(command)
    )
    kept = folder / "commands" / f"{word}.json"
    if not kept.exists():
        log.info("flow3r %s", " ".join(command))
        answer = _flow3r(*command)
        if "error" in answer or any("error" in part for part in _suites(answer)):
            return answer
        kept.parent.mkdir(parents=True, exist_ok=True)
        write_json(kept, answer)
    return dict(json.loads(kept.read_text(encoding="utf-8")))


def _suites(answer: dict[str, Any]) -> list[dict[str, Any]]:
    return list(answer.get("suites", {}).values())


def _flow3r(*command: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-m", "flow3r_ros.cli.main", *command, "--json"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode < 0:
        return {"error": f"ended by signal {-done.returncode}"}
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]}
    return dict(json.loads(done.stdout))


def _frames(clip: Clip) -> int:
    stamps = clip.path / "timestamps.txt"
    return len(stamps.read_text(encoding="utf-8").split()) if stamps.exists() else 0


if __name__ == "__main__":
    try:
        main()
    except Flow3rError as error:
        sys.exit(f"flow3r: {error}")
