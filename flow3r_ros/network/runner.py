"""The network behind the Predictor protocol: frames in, numpy out, in torch on CPU or CUDA, or
exported in onnxruntime.

A frame is encoded once and its tokens kept by frame id, so a window that shares frames with the
last one encodes only what is new; heads run only for frames whose result is used. Running out of
memory makes windows, then images, smaller; it never ends the process.
"""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from flow3r_ros.config import ModelSettings
from flow3r_ros.errors import ModelError
from flow3r_ros.geometry.flow import flow_from_ndc
from flow3r_ros.network.catalog import InputSpec, Manifest, find_model
from flow3r_ros.network.checkpoint import load_folder
from flow3r_ros.network.device import choose_device, choose_dtype, usable_cores
from flow3r_ros.network.memory import Smaller, is_out_of_memory
from flow3r_ros.network.model import Flow3r
from flow3r_ros.network.onnx_network import OnnxNetwork
from flow3r_ros.network.outputs import EvidenceInput, Network, Outputs
from flow3r_ros.network.preprocess import network_size, resize
from flow3r_ros.types import Evidence, Float32, Float64, Frame, Prediction, Window

logger = logging.getLogger(__name__)

CACHED_FRAMES = 64
_In = TypeVar("_In")
_Out = TypeVar("_Out")


def open_predictor(settings: ModelSettings) -> Runner:
    """Load the model that the settings name onto their device. Raises ModelError naming the file or
    device and the cure."""
    folder = find_model(settings.name)
    if folder.manifest.graphs is None:
        return Runner(open_model(settings), folder.manifest)
    torch.set_num_threads(_threads(settings))
    network = OnnxNetwork(folder, settings.provider, _threads(settings))
    return Runner(network, folder.manifest)


def open_model(settings: ModelSettings) -> Flow3r:
    """The network itself, in torch; errors as `open_predictor`, and for an exported model."""
    device = choose_device(settings.device)
    torch.set_num_threads(_threads(settings))
    model = load_folder(find_model(settings.name), device, choose_dtype(settings.dtype, device))
    if settings.compile and device.type == "cuda":
        model.compile_blocks()
    return model


def _threads(settings: ModelSettings) -> int:
    return settings.threads or max(1, usable_cores() // 2)


class Runner:
    """Predictor of one loaded network. `predict` is for one thread at a time; `prepare` may run
    beside it.

    Attributes:
        manifest: what is known about the weights (name, source, licence, sha256).
        model: the network itself.
        device: where tensors are handed to the network.
        runs_on: what computes, in words.
        arithmetic: what the transformer computes in; None = float32.
    """

    def __init__(
        self, model: Network, manifest: Manifest, cached_frames: int = CACHED_FRAMES
    ) -> None:
        self.manifest = manifest
        self.name = manifest.name
        self.uses_evidence = model.config.evidence is not None
        self.frames_per_window = manifest.input.window
        self.device = model.device
        self.runs_on = model.runs_on
        self.arithmetic = model.arithmetic
        self.model = model
        self._input: InputSpec = manifest.input
        self._cached_frames = cached_frames
        self._tokens: OrderedDict[tuple[int, int, tuple[int, int]], Future[Tensor]] = OrderedDict()
        self._lock = threading.Lock()
        self._smaller = Smaller()
        self._worker: ThreadPoolExecutor | None = None
        self._stream = torch.cuda.Stream(self.device) if self.device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def input_size(self, width: int, height: int) -> tuple[int, int]:
        """(width, height) of the prediction's grid for an image of this size."""
        return network_size(
            width, height, self._input.pixel_limit(), self.model.config.encoder.patch_size
        )

    def reset(self) -> None:
        """Forget every cached frame."""
        with self._lock:
            self._tokens.clear()

    def memory_mb(self) -> float:
        """GPU memory that torch has reserved on the device, in MB; 0 on a CPU."""
        return (
            torch.cuda.memory_reserved(self.device) / 2**20 if self.device.type == "cuda" else 0.0
        )

    def close(self) -> None:
        """Give the network and its memory back; the runner cannot predict afterwards."""
        self.reset()
        del self.model
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def prepare(self, frame: Frame) -> None:
        """Encode a frame ahead of `predict`; what does not fit into memory now is left to
        `predict`."""
        try:
            self._in_sound_thread(self._encoded, frame)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            self._leave_thread(error)

    def predict(self, window: Window) -> Prediction:
        """Geometry of the wanted frames (and flow of the pairs), units as the evidence's, else
        arbitrary.

        Raises ModelError when the network's answer is not finite or not even the smallest input
        fits into memory.
        """
        sizes = {frame.rgb.shape[:2] for frame in window.frames}
        if len(sizes) > 1:
            raise ModelError(
                f"frames of one window differ in size ({sorted(sizes)})",
                "start a new window when the resolution changes",
            )
        while True:
            smaller = self._smaller.apply(window)
            try:
                return self._in_sound_thread(self._predict, smaller)
            except (RuntimeError, MemoryError) as error:
                if isinstance(error, torch.linalg.LinAlgError):  # type: ignore[attr-defined]
                    raise ModelError(
                        "the network's answer is not finite",
                        "check the weights: flow3r models verify",
                    ) from error
                if not is_out_of_memory(error):
                    raise
                self._leave_thread(error)
                self._back_off(smaller)

    def _in_sound_thread(self, function: Callable[[_In], _Out], argument: _In) -> _Out:
        def compute() -> _Out:
            torch.set_num_threads(torch.get_num_threads())  # OpenMP keeps the number by thread
            return function(argument)

        return compute() if self._worker is None else self._worker.submit(compute).result()

    def _leave_thread(self, error: BaseException) -> None:
        """oneDNN's code generator stays broken in a thread in which it once ran out of memory: go
        on in a fresh one."""
        if self._worker is not None or "primitive" in str(error):
            self._worker = ThreadPoolExecutor(1, thread_name_prefix="network")

    def _back_off(self, window: Window) -> None:
        self.reset()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        said = self._smaller.step(window, self._working_size(window.frames[0]))
        logger.warning("out of memory on %s: %s", self.device, said)

    def _working_size(self, frame: Frame) -> tuple[int, int]:
        """(width, height) that images are given to the network at: the input size, or less after
        running out of memory."""
        height, width = frame.rgb.shape[:2]
        limit = int(self._input.pixel_limit() * self._smaller.resolution**2)
        return network_size(width, height, limit, self.model.config.encoder.patch_size)

    @torch.inference_mode()
    def _predict(self, window: Window) -> Prediction:
        frames = {frame.id: index for index, frame in enumerate(window.frames)}
        asked = list(
            dict.fromkeys([*window.wanted, *(id_ for pair in window.pairs for id_ in pair)])
        )
        size = self._working_size(window.frames[0])
        with self._on_stream():
            tokens = torch.stack([self._encoded(frame) for frame in window.frames])[None]
            pairs = (
                self._upload(
                    np.array([[[asked.index(i) for i in pair] for pair in window.pairs]], np.int64)
                )
                if window.pairs
                else None
            )
            order = torch.tensor([frames[id_] for id_ in asked], device=self.device)
            out = self.model.decode(
                tokens,
                (size[1], size[0]),
                None if pairs is None else order[pairs],
                self._evidence(window.evidence, size),
                order,
            )
            return self._prediction(
                window,
                out,
                scale=window.evidence.scale if self.uses_evidence and window.evidence else 1.0,
            )

    def _evidence(self, evidence: Evidence | None, size: tuple[int, int]) -> EvidenceInput | None:
        """Evidence as tensors on the working grid."""
        if evidence is None or not self.uses_evidence:
            return None
        planes = self._upload(np.ascontiguousarray(evidence.planes, np.float32))
        grid = (size[1] // 2, size[0] // 2)
        if tuple(planes.shape[-2:]) != grid:
            planes = torch.nn.functional.interpolate(
                planes, size=grid, mode="bilinear", align_corners=False
            )
        return EvidenceInput(planes[None], self._upload(evidence.poses.astype(np.float32))[None])

    def _prediction(self, window: Window, out: Outputs, scale: float) -> Prediction:
        """Outputs as numpy on the promised grid."""
        count = len(window.wanted)
        width, height = self.input_size(*window.frames[0].rgb.shape[1::-1])
        fields = [
            self._on_grid(out["local_points"][0, :count], width, height),
            self._on_grid(out["conf"][0, :count].sigmoid(), width, height),
        ]
        flow = [] if out["flow"] is None else [self._on_grid(out["flow"][0], width, height)]
        points, confidence, poses, *flows = self._download(
            [*fields, out["camera_poses"][0, :count], *flow]
        )
        if not (np.isfinite(poses).all() and np.isfinite(points).all()):
            raise ModelError(
                "the network's answer is not finite", "check the weights: flow3r models verify"
            )
        placed: Float64 = poses.astype(np.float64)
        placed[:, :3, 3] *= scale
        return Prediction(
            frame_ids=window.wanted,
            local_points=points * np.float32(scale),
            confidence=self._calibrated(confidence[..., 0]),
            poses=placed,
            flow={
                pair: flow_from_ndc(ndc).astype(np.float32)
                for pair, ndc in zip(window.pairs, flows[0], strict=True)
            }
            if flows
            else {},
        )

    def _calibrated(self, confidence: Float32) -> Float32:
        curve = self.manifest.calibration
        return confidence if curve is None else curve.apply(confidence)

    # --- one frame's tokens -----------------------------------------------------------------------

    @torch.inference_mode()
    def _encoded(self, frame: Frame) -> Tensor:
        """Patch tokens `[T, width]`; computed once per frame, whichever thread asks first."""
        size = self._working_size(frame)
        key = (frame.id, frame.stamp_ns, size)
        with self._lock:
            entry = self._tokens.get(key)
            mine = entry is None
            if entry is None:
                entry = self._tokens[key] = Future()
                while len(self._tokens) > self._cached_frames:
                    self._tokens.popitem(last=False)
            self._tokens.move_to_end(key)
        if mine:
            try:
                entry.set_result(self._encode(frame, size))
            except BaseException as error:
                with self._lock:
                    self._tokens.pop(key, None)
                entry.set_exception(error)
        return entry.result()

    def _encode(self, frame: Frame, size: tuple[int, int]) -> Tensor:
        small = resize(frame.rgb, size, self._input.resample)
        with self._on_stream():
            image = self._upload(small).permute(2, 0, 1)[None].float() / 255.0
            return self.model.encode_images(image)[0]

    # --- to and from the device -------------------------------------------------------------------

    def _on_stream(self) -> AbstractContextManager[object]:
        return nullcontext() if self._stream is None else torch.cuda.stream(self._stream)

    def _upload(self, array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array if array.flags.writeable else array.copy())
        if self._stream is None:
            return tensor
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def _download(self, tensors: list[Tensor]) -> list[Float32]:
        """float32 copies on the host; on CUDA all copies are queued before the one wait."""
        if self._stream is None:
            return [tensor.float().numpy() for tensor in tensors]
        staged = [
            torch.empty(tensor.shape, dtype=torch.float32, pin_memory=True) for tensor in tensors
        ]
        for host, tensor in zip(staged, tensors, strict=True):
            host.copy_(tensor, non_blocking=True)
        self._stream.synchronize()
        return [host.numpy() for host in staged]

    @staticmethod
    def _on_grid(maps: Tensor, width: int, height: int) -> Tensor:
        """`[N, h, w, C]` resampled to the promised grid where memory forced a smaller one."""
        if maps.shape[1:3] == (height, width):
            return maps
        moved = torch.nn.functional.interpolate(
            maps.permute(0, 3, 1, 2).float(),
            size=(height, width),
            mode="bilinear",
            align_corners=False,
        )
        return moved.permute(0, 2, 3, 1)
