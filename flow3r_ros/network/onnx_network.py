"""Exported graphs behind the interface of the network in torch (`encode_images`, `decode`), so that
one Runner serves both: its cache of encoded frames, its evidence, its checks.

Tensors are the host's; on a GPU onnxruntime copies them there and back.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from flow3r_ros.errors import ModelError, install_extra
from flow3r_ros.network.catalog import DECODER, ENCODER, FLOW, ModelFolder, verify
from flow3r_ros.network.outputs import (
    Decoded,
    EvidenceInput,
    Outputs,
    evidence_or_unknown,
    finish,
    flow_positions,
    places_of_pairs,
)

Provider = Literal["auto", "cpu", "cuda", "tensorrt"]
NAMES = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
FALL_BACK = {"cpu": ("cpu",), "cuda": ("cuda", "cpu"), "tensorrt": ("tensorrt", "cuda", "cpu")}
"""what runs the operators that the provider does not know, in this order"""


class OnnxNetwork:
    """The graphs of one exported model folder, opened with onnxruntime.

    Attributes:
        config: the architecture.
        size: (width, height) of the only input that the graphs take.
        runs_on: `onnxruntime` and the provider, for people.
        device: where the tensors given and answered lie.
        arithmetic: None, as for float32 in torch.
    """

    arithmetic: torch.dtype | None = None
    device = torch.device("cpu")

    def __init__(self, folder: ModelFolder, provider: Provider = "auto", threads: int = 0) -> None:
        """Raises ModelError where onnxruntime, the provider or a graph is missing or damaged."""
        try:
            import onnxruntime
        except ImportError as error:
            raise ModelError(
                f"{folder.path}: needs onnxruntime, which is not installed", install_extra("onnx")
            ) from error
        verify(folder)
        assert folder.manifest.graphs is not None
        self.config = folder.architecture()
        self.size = folder.manifest.graphs.size
        provider = _choose(provider, onnxruntime.get_available_providers())
        self.runs_on = f"onnxruntime ({provider})"
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        self._sessions = {
            name: _session(folder, name, options, provider)
            for name in (ENCODER, DECODER, FLOW)
            if name in folder.manifest.graphs.sha256
        }

    def encode_images(self, images: Tensor) -> Tensor:
        """As `Flow3r.encode_images`."""
        self._check_size((images.shape[-2], images.shape[-1]))
        return self._run(ENCODER, {"images": images})["tokens"]

    def decode(
        self,
        tokens: Tensor,
        size: tuple[int, int],
        pair_indices: Tensor | None = None,
        evidence: EvidenceInput | None = None,
        wanted: Tensor | None = None,
    ) -> Outputs:
        """As `Flow3r.decode`, for a batch of one window."""
        self._check_size(size)
        frames = tokens.shape[1]
        evidence = evidence_or_unknown(self.config, evidence, (1, frames), size, tokens.device)
        wanted = torch.arange(frames) if wanted is None else wanted
        given = {"tokens": tokens[0], "wanted": wanted}
        if evidence is not None:
            given["planes"] = evidence.planes[0]
        found = self._run(DECODER, given)
        latents = [value for name, value in found.items() if "latents" in name]
        decoded = Decoded(
            local_points=found["local_points"],
            conf=found["conf"],
            rows=found["rows"],
            translation=found["translation"],
            rays=found.get("rays"),
            point_latents=latents[:4],
            camera_latents=latents[4:],
        )
        out = finish(decoded, None if evidence is None else evidence.poses[:, wanted], batch=1)
        if pair_indices is not None:
            if FLOW not in self._sessions:
                raise ModelError(
                    "this model was exported without its flow head",
                    "export it with --flow, or ask for no flow",
                )
            source, target = places_of_pairs(pair_indices, wanted, 1, len(wanted))
            names = [name for name in found if "latents" in name]
            asked = dict(zip(names, latents, strict=True)) | {"source": source, "target": target}
            raw = self._run(FLOW, asked)["raw_flow"]
            base = self.config.flow_head.base
            out["flow"] = flow_positions(raw, base, out, decoded.rays, source, target)
        return out

    def _check_size(self, size: tuple[int, int]) -> None:
        if size[::-1] != self.size:
            asked, own = ("x".join(map(str, pair)) for pair in (size[::-1], self.size))
            raise ModelError(
                f"the images would be given to the network as {asked}, but it was exported for "
                f"{own}",
                "export it for this camera: flow3r models export NAME --image WIDTHxHEIGHT",
            )

    def _run(self, graph: str, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        session = self._sessions[graph]
        names = [output.name for output in session.get_outputs()]
        arrays = {name: value.contiguous().numpy() for name, value in inputs.items()}
        try:
            answers = session.run(names, arrays)
        except Exception as error:  # one class per status code, without a common base of its own
            if "allocat" in str(error):
                raise MemoryError(f"{graph}: out of memory") from error
            raise ModelError(
                f"{graph}: onnxruntime failed ({_first_line(error)})",
                "set model.provider: cpu, or run the model that it was exported from",
            ) from error
        return {name: torch.from_numpy(value) for name, value in zip(names, answers, strict=True)}


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:160]


def _choose(provider: Provider, available: list[str]) -> Provider:
    """The provider to use. Raises ModelError where this onnxruntime has not got it."""
    if provider == "auto":
        return "cuda" if NAMES["cuda"] in available else "cpu"
    if NAMES[provider] not in available:
        have = ", ".join(name for name, theirs in NAMES.items() if theirs in available)
        raise ModelError(
            f"model.provider {provider}: this onnxruntime has only {have}",
            "install onnxruntime-gpu in its place, or set model.provider: auto",
        )
    return provider


def _session(folder: ModelFolder, name: str, options: Any, provider: Provider) -> Any:
    import onnxruntime

    chosen = [NAMES[each] for each in FALL_BACK[provider]]
    try:
        return onnxruntime.InferenceSession(folder.path / name, options, providers=chosen)
    except Exception as error:  # see _run
        raise ModelError(
            f"{folder.path / name}: onnxruntime cannot open it ({_first_line(error)})",
            "export it again: flow3r models export",
        ) from error
