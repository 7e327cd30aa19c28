"""`flow3r models export`: a network as ONNX graphs, one per thing that runs at its own pace.

    encoder.onnx   images [M, 3, H, W] in [0, 1]                    -> tokens [M, T, C]
    decoder.onnx   tokens [N, T, C], wanted [W], with evidence also -> points, confidence, cameras
                   planes [N, 10, H/2, W/2]
    flow.onnx      latents of the decoder, source [P], target [P]   -> raw flow [P, 2, H, W]

M, N, W and P are free, the image size is fixed: position rows are resampled to it here, because no
ONNX operator resamples them as torch does. Rotations (a singular value decomposition) and world
points are left to `outputs.finish`. Every export is run in onnxruntime and compared with torch
before it gets its name.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flow3r_ros.errors import ModelError, install_extra
from flow3r_ros.network.catalog import (
    DECODER,
    ENCODER,
    FLOW,
    Graphs,
    Manifest,
    ModelFolder,
    file_sha256,
    find_model,
    model_name,
    read_folder,
    user_models,
    why_kept,
)
from flow3r_ros.network.checkpoint import load_folder, write_manifest
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.onnx_network import OnnxNetwork
from flow3r_ros.network.outputs import EvidenceInput
from flow3r_ros.network.preprocess import network_size
from flow3r_ros.paths import OutputFolder

OPSET = 18
TOLERANCE = 1e-3
"""largest difference to torch, as a share of the largest value of an output"""
LARGEST_FILE = 1 << 30
"""bytes of weights up to which they lie in the graph itself; an ONNX file ends at 2 GB"""
LATENTS = tuple(f"{kind}_latents_{level}" for kind in ("point", "camera") for level in range(4))


class _Encoder(nn.Module):
    def __init__(self, model: Flow3r, rows: int, columns: int) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            cls, patches = model.encoder.positions(rows, columns)
        self.register_buffer("cls_position", cls.clone())
        self.register_buffer("patch_positions", patches.clone())

    def forward(self, images: Tensor) -> Tensor:
        positions = self.get_buffer("cls_position"), self.get_buffer("patch_positions")
        return self.model.encode_images(images, positions)


class _Decoder(nn.Module):
    def __init__(self, model: Flow3r, size: tuple[int, int], with_flow: bool) -> None:
        super().__init__()
        self.model, self.size, self.with_flow = model, size, with_flow

    def forward(self, tokens: Tensor, wanted: Tensor, planes: Tensor | None = None) -> list[Tensor]:
        unused = tokens.new_zeros(1, 1, 4, 4)  # prior poses are applied outside the graph
        evidence = None if planes is None else EvidenceInput(planes[None], unused)
        out = self.model.decode_maps(tokens[None], self.size, evidence, wanted)
        found = [out.local_points, out.conf, out.rows, out.translation]
        if self.with_flow:
            rays = [] if out.rays is None else [out.rays]
            found += [*rays, *out.point_latents, *out.camera_latents]
        return found


class _Flow(nn.Module):
    def __init__(self, model: Flow3r, size: tuple[int, int]) -> None:
        super().__init__()
        self.model, self.size = model, size

    def forward(self, latents: list[Tensor], source: Tensor, target: Tensor) -> Tensor:
        return self.model.raw_flow(latents[:4], latents[4:], source, target, self.size)


def export_model(
    name: str,
    image: tuple[int, int],
    output: Path | None = None,
    with_flow: bool = True,
    replace: bool = False,
) -> tuple[ModelFolder, float]:
    """Make a model folder of ONNX graphs of the model `name`; it appears complete or not at all.

    Args:
        name: model name or folder.
        image: (width, height) of the camera's images, whose shape the input gets.
        output: the new folder; default: `NAME_onnx` in the user's models folder.
        with_flow: export the flow head as well.
        replace: put it in the place of an older model folder.

    Returns:
        The folder, and the largest difference to torch as a share of an output's largest value.

    Raises:
        ModelError: packages or weights are missing, or the graphs do not answer as torch does.
        OutputError: the folder exists or cannot be written.
    """
    for package in ("onnx", "onnxscript", "onnxruntime"):
        if find_spec(package) is None:
            raise ModelError(
                f"export needs {package}, which is not installed", install_extra("onnx")
            )
    folder = find_model(name)
    model = load_folder(folder)
    spec = folder.manifest.input
    size = network_size(*image, spec.pixel_limit(), model.config.encoder.patch_size)
    target = output or user_models() / f"{model_name(folder.manifest.name)}_onnx"
    with OutputFolder(target, why_kept if replace else None) as unfinished:
        _write_graphs(unfinished.path, model, size[::-1], with_flow)
        text = model.config.model_dump_json(indent=1) + "\n"
        (unfinished.path / "config.json").write_text(text, encoding="utf-8")
        write_manifest(
            unfinished.path, _manifest(folder.manifest, target.name, unfinished.path, size)
        )
        difference = _difference(model, read_folder(unfinished.path), with_flow)
    return find_model(target), difference


def _manifest(known: Manifest, name: str, path: Path, size: tuple[int, int]) -> Manifest:
    digests = {file.name: file_sha256(file) for file in sorted(path.glob("*.onnx*"))}
    return known.model_copy(
        update={
            "name": name,
            "source": f"exported from {known.name} (sha256 {known.sha256}); {known.source}",
            "sha256": digests[DECODER],
            "graphs": Graphs(size=size, sha256=digests),
        }
    )


@torch.no_grad()
def _write_graphs(path: Path, model: Flow3r, size: tuple[int, int], with_flow: bool) -> None:
    """The graphs of inputs of `size` (H, W)."""
    patch, registers = model.config.encoder.patch_size, model.config.decoder.registers
    rows, columns = size[0] // patch, size[1] // patch
    images = torch.rand(3, 3, *size)
    encoder = _Encoder(model, rows, columns).eval()
    _export(path / ENCODER, encoder, {"images": images}, ["tokens"], {"images": {0: "images"}})
    given = {"tokens": encoder(images).contiguous(), "wanted": torch.tensor([2, 0])}
    free: dict[str, Any] = {"tokens": {0: "frames"}, "wanted": {0: "wanted_frames"}}
    outputs = ["local_points", "conf", "rows", "translation"]
    if model.config.evidence is not None:
        channels = model.config.evidence.channels
        given["planes"] = torch.rand(3, channels, size[0] // 2, size[1] // 2)
        free["planes"] = {0: "frames"}
    if with_flow:
        outputs += ["rays"] if model.config.evidence is not None else []
        outputs += LATENTS
    _export(path / DECODER, _Decoder(model, size, with_flow).eval(), given, outputs, free)
    if with_flow:
        tall = registers + rows * columns
        latents = [torch.rand(2, tall, model.config.point_decoder.width) for _ in LATENTS]
        asked = {
            "latents": latents,
            "source": torch.tensor([0, 1, 1]),
            "target": torch.tensor([1, 0, 1]),
        }
        shapes = {
            "latents": [{0: "wanted_frames"} for _ in LATENTS],
            "source": {0: "pairs"},
            "target": {0: "pairs"},
        }
        names = [*LATENTS, "source", "target"]
        _export(path / FLOW, _Flow(model, size).eval(), asked, ["raw_flow"], shapes, names)


def _export(
    path: Path,
    graph: nn.Module,
    inputs: dict[str, Any],
    outputs: Sequence[str],
    free: dict[str, Any],
    names: Sequence[str] | None = None,
) -> None:
    weights = sum(value.numel() * value.element_size() for value in graph.state_dict().values())
    log = logging.getLogger("torch.onnx")
    before = log.level
    log.setLevel(logging.ERROR)  # it tells what of torch it does not find, and how it names axes
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (),
                path,
                kwargs=inputs,
                input_names=list(names or inputs),
                output_names=list(outputs),
                dynamic_shapes=free,
                opset_version=OPSET,
                dynamo=True,
                external_data=weights > LARGEST_FILE,
                verbose=False,
            )
    finally:
        log.setLevel(before)


@torch.inference_mode()
def _difference(model: Flow3r, folder: ModelFolder, with_flow: bool) -> float:
    """Largest difference between torch and the graphs, over their outputs. Raises ModelError where
    it is beyond `TOLERANCE`."""
    generator = torch.Generator().manual_seed(0)
    exported = OnnxNetwork(folder, "cpu")
    width, height = exported.size
    images = torch.rand(2, 3, height, width, generator=generator)
    pairs = torch.tensor([[[0, 1], [1, 0]]]) if with_flow else None
    wanted, evidence = torch.tensor([1, 0]), None
    if model.config.evidence is not None:
        channels = model.config.evidence.channels
        planes = torch.rand(1, 2, channels, height // 2, width // 2, generator=generator)
        evidence = EvidenceInput(planes, torch.eye(4).expand(1, 2, 4, 4))
    answers = [
        network.decode(
            network.encode_images(images)[None],
            (height, width),
            pairs,
            evidence,
            wanted,
        )
        for network in (model, exported)
    ]
    worst, where = 0.0, ""
    for key, expected in answers[0].items():
        if isinstance(expected, Tensor):
            off = float((answers[1][key] - expected).abs().max() / expected.abs().max())  # type: ignore[literal-required]
            worst, where = (off, key) if not off <= worst else (worst, where)
    if not worst <= TOLERANCE:
        raise ModelError(
            f"{where} of the exported graphs differs from torch by {worst:.1e} of its range",
            f"other versions may do better: {install_extra('onnx')}",
        )
    return worst
