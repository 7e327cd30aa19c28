"""`flow3r train --experiment factored`: the paper's controlled experiment at a scale that a CPU can afford.

Equal budgets, several seeds, one small network that starts from the same weights in every row: 3-D labels on few clips (`3d-sup`); the
same plus unlabelled clips taught by flow in three ways; labels for everything (`3d-sup++`); then the factored way with 3x and 10x as
many unlabelled clips. Flow of the unlabelled clips is the factory's own: an ideal 2-D teacher, so that the *form* of supervision is
compared and not a teacher. The network sees images, rays and flow, but neither triangulated depth nor prior poses, which would hand it
the answer.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from flow3r_ros.errors import TrainingError
from flow3r_ros.network.catalog import InputSpec, Manifest
from flow3r_ros.network.checkpoint import save_model_folder
from flow3r_ros.network.config import DecoderConfig, EncoderConfig, EvidenceConfig, Flow3rConfig, FlowHeadConfig, HeadDecoderConfig
from flow3r_ros.network.model import Flow3r
from flow3r_ros.training.loop import run
from flow3r_ros.training.sample import Sample
from flow3r_ros.training.scene_shards import SceneShards
from flow3r_ros.training.shards import write_atomically
from flow3r_ros.training.train_config import TrainSettings
from flow3r_ros.types import Evidence

Kind = Literal["factored", "projective", "tracking"]
METRICS = ("rra_5", "rta_15", "rotation_deg", "direction_deg", "abs_rel", "epe_geometry")
PUBLISHED = {
    "3d-sup": (0.7500, 0.6929),
    "flow-projective": (0.6700, 0.4572),
    "flow-tracking": (0.7438, 0.7021),
    "flow-factored": (0.7700, 0.7366),
    "3d-sup++": (0.8033, 0.7333),
}
"""ScanNet++ RRA@30, RTA@30 of the paper (`flow3r_training_and_results.md`, section 6)"""


@dataclass(frozen=True)
class Row:
    """One line of the table: how many unlabelled clips, whether they bring 3-D labels, and what the flow loss looks at."""

    name: str
    unlabelled: int
    labels: bool = False
    kind: Kind = "factored"


def rows_of(unlabelled: int) -> list[Row]:
    """The paper's rows for a given 1x number of unlabelled clips."""
    return [
        Row("3d-sup", 0),
        Row("flow-projective", unlabelled, kind="projective"),
        Row("flow-tracking", unlabelled, kind="tracking"),
        Row("flow-factored", unlabelled),
        Row("3d-sup++", unlabelled, labels=True),
        Row("flow-factored 3x", 3 * unlabelled),
        Row("flow-factored 10x", 10 * unlabelled),
    ]


def experiment(
    data: Path, held_out: Path, output: Path, seeds: Sequence[int] = (1, 2), steps: int = 200, labelled: int = 24, unlabelled: int = 48
) -> list[dict[str, Any]]:
    """Train every row with every seed and write `output/experiment.json`; rows that are there already are not trained again.

    Args:
        data, held_out: folders of scene shards of one grid or several.
        steps: of two clips each, for every row.
        labelled: clips with 3-D labels, in every row.
        unlabelled: further clips at 1x.

    Raises TrainingError when `data` holds fewer clips than the 10x row needs.
    """
    clips = _clips(SceneShards([data], 0, 1), labelled + 10 * unlabelled)
    validation = SceneShards([held_out], 0, 1)
    results: list[dict[str, Any]] = []
    for row in rows_of(unlabelled):
        for seed in seeds:
            folder = output / f"{row.name.replace(' ', '_')}_{seed}"
            done = folder / "scores.json"
            if not done.exists():
                scores = _train_row(row, seed, steps, clips, labelled, validation, folder)
                write_atomically(done, json.dumps({"row": row.name, "seed": seed, **scores}).encode())
            results.append(json.loads(done.read_text(encoding="utf-8")))
    write_atomically(output / "experiment.json", json.dumps(results, indent=1).encode())
    return results


def _train_row(
    row: Row, seed: int, steps: int, clips: list[Sample], labelled: int, validation: SceneShards, folder: Path
) -> dict[str, float]:
    began = time.monotonic()
    settings = TrainSettings.model_validate(
        {
            "start_from": str(_small_network(folder.parent / f"start_{seed}", seed)),
            "seed": seed,
            "steps": steps,
            "clips_per_step": 2,
            "pairs_per_clip": 2,
            "precision": "32-true",
            "checkpoint_every": steps,
            "validation_clips": 24,
            "loss": {"flow": 0.0 if row.labels or row.unlabelled == 0 else 2.0, "flow_kind": row.kind},
            "dropout": {"everything": 0.0, "correspondence": 0.0, "depth": 0.0, "poses": 0.0},
            "optimisation": {"learning_rate": 1e-3, "warmup_steps": 20},
        }
    )
    source = HalfLabelled(clips[:labelled], clips[labelled : labelled + row.unlabelled], row.labels, seed)
    held = Blinded(validation)
    run(settings, source, folder, validation=held)
    scores = json.loads((folder / "validation.jsonl").read_text(encoding="utf-8").splitlines()[-1])
    return {**{name: scores[name] for name in METRICS if name in scores}, "seconds": time.monotonic() - began}


class HalfLabelled:
    """Each step: one clip with 3-D labels and, where there are any, one without."""

    def __init__(self, labelled: list[Sample], unlabelled: list[Sample], keep_labels: bool, seed: int) -> None:
        others = unlabelled if keep_labels else [replace(sample, depth=None, poses=None) for sample in unlabelled]
        self._labelled, self._others, self._seed = labelled, others or labelled, seed

    def batch(self, step: int, part: slice = slice(None)) -> list[Sample]:
        """The two samples of a step, of one shape."""
        rng = np.random.default_rng((self._seed, step))
        first = self._labelled[int(rng.integers(len(self._labelled)))]
        fitting = [sample for sample in self._others if sample.rgb.shape == first.rgb.shape] or [first]
        return [first, fitting[int(rng.integers(len(fitting)))]][part]


class Blinded:
    """Held-out clips with the same evidence as in training: no triangulated depth, no prior poses."""

    def __init__(self, clips: SceneShards) -> None:
        self._clips = clips

    def all(self, limit: int) -> Iterator[list[Sample]]:
        """Up to `limit` clips."""
        return ([_without_answer(sample) for sample in samples] for samples in self._clips.all(limit))


def _without_answer(sample: Sample) -> Sample:
    assert sample.evidence is not None
    planes = sample.evidence.planes.copy()
    planes[:, 2:4] = 0
    return replace(sample, evidence=Evidence(planes, np.tile(np.eye(4), (len(planes), 1, 1))))


def _clips(shards: SceneShards, count: int) -> list[Sample]:
    found = [_without_answer(samples[0]) for samples in shards.all(len(shards))][:count]
    if len(found) < count:
        raise TrainingError(f"the experiment needs {count} clips, there are {len(found)}", "render more, or use fewer unlabelled clips")
    order = np.random.default_rng(0).permutation(len(found))
    return [found[index] for index in order]


def _small_network(folder: Path, seed: int) -> Path:
    """The network every row of a seed starts from: 1 M parameters, flow head on top of zero flow, not of a reprojection."""
    if folder.exists():
        return folder
    torch.manual_seed(seed)
    head = HeadDecoderConfig(width=64, blocks=4, heads=2, out=64)
    config = Flow3rConfig(
        name="flow3r_experiment",
        initialisation="scratch",
        encoder=EncoderConfig(width=96, blocks=2, heads=3, layer_scale=1.0, rope_base=None, image_size=112),
        decoder=DecoderConfig(width=96, blocks=4, heads=3, layer_scale=0.5, qk_norm=True),
        point_decoder=head,
        conf_decoder=head.model_copy(update={"blocks": 1, "out": 32}),
        camera_decoder=head,
        flow_head=FlowHeadConfig(features=24, level_channels=(24, 32, 48, 48), base="identity"),
        evidence=EvidenceConfig(width=24, skip_width=8),
    )
    manifest = Manifest(
        name=config.name, source="random weights", license="Apache-2.0", parameters=0, input=InputSpec(resolution=(112, 84))
    )
    save_model_folder(folder, Flow3r(config), manifest)
    return folder


def render_table(results: Sequence[dict[str, Any]]) -> str:
    """Markdown: mean and spread (half the range over seeds) of every row, beside the published RRA@30 / RTA@30."""
    names = list(dict.fromkeys(str(result["row"]) for result in results))
    lines = ["| supervision | seeds | " + " | ".join(METRICS) + " | published RRA@30 / RTA@30 |", "|---" * (len(METRICS) + 3) + "|"]
    for name in names:
        rows = [result for result in results if result["row"] == name]
        cells = [_cell([float(row[metric]) for row in rows if metric in row]) for metric in METRICS]
        published = "{:.3f} / {:.3f}".format(*PUBLISHED[name]) if name in PUBLISHED else "-"
        lines.append(f"| {name} | {len(rows)} | " + " | ".join(cells) + f" | {published} |")
    return "\n".join(lines) + "\n"


def _cell(values: list[float]) -> str:
    if not values:
        return "-"
    spread = f" ± {(max(values) - min(values)) / 2:.3f}" if len(values) > 1 else ""
    return f"{np.mean(values):.3f}{spread}"


def write_page(path: Path, results: Sequence[dict[str, Any]], command: str, budget: str) -> Path:
    """`docs/experiments.md` with command, budget, table, and a figure of every seed beside it (`experiments.svg`)."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(str(result["row"]) for result in results))
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    axes = figure.subplots(1, 3)
    for axis, metric in zip(axes, ("rta_15", "direction_deg", "abs_rel"), strict=True):
        for result in results:
            axis.plot(names.index(str(result["row"])), result.get(metric, np.nan), "o", color="tab:blue", alpha=0.7)
        axis.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=7)
        axis.set_title(metric, fontsize=9)
        axis.grid(alpha=0.3)
    figure.savefig(path.with_suffix(".svg"))
    seconds = sum(float(result["seconds"]) for result in results)
    text = f"""# The paper's controlled experiment at our scale

`{command}`

{__doc__ or ""}
Budget: {budget}; {seconds / 60:.0f} minutes in all. Cells are means over seeds, ± half their range; held-out scenes with other textures.
The published columns are another network, data and measure (RRA@30, RTA@30 on ScanNet++): compare the order of rows, not the numbers.

{render_table(results)}
![every seed]({path.with_suffix(".svg").name})
"""
    write_atomically(path, text.encode())
    return path
